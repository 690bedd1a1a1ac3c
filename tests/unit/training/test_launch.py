"""Ctrl-C waits for the checkpoint that it asks for as long as there is something to wait for."""

import threading
import time
from pathlib import Path

import pytest

from continual.training import launch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(launch, "STILL_SECONDS", 0.5)


def test_a_checkpoint_that_grows_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STILL_SECONDS", 30.0)
    ended = threading.Event()

    def write() -> None:
        (tmp_path / ".step-00000004.tmp").mkdir()
        for _ in range(12):
            with (tmp_path / ".step-00000004.tmp" / "weights.pt").open("ab") as file:
                file.write(b"x" * 1000)
            time.sleep(0.1)
        (tmp_path / ".step-00000004.tmp").rename(tmp_path / "step-00000004")
        ended.set()

    threading.Thread(target=write).start()
    launch.wait_for_checkpoint([tmp_path], ended)
    assert ended.is_set()
    assert (tmp_path / "step-00000004" / "weights.pt").stat().st_size == 12_000


def test_workers_that_do_nothing_are_not_waited_for_without_end(tmp_path: Path) -> None:
    begun = time.monotonic()
    launch.wait_for_checkpoint([tmp_path / "none"], threading.Event())
    assert 0.5 <= time.monotonic() - begun < 10
