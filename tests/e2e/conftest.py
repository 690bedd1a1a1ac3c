"""One undisturbed run of the tiny sequence, shared by all tests that look at it or compare with it."""

from pathlib import Path

import pytest

from tests.e2e import command


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage in which the tiny sequence has run once, undisturbed."""
    storage = tmp_path_factory.mktemp("tiny")
    finished = command.run(storage)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    (storage / "stdout.txt").write_text(finished.stdout)
    return storage
