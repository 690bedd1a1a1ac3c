"""Collects the rows of the ladder's table; prints them, and writes them into the manual when the whole ladder ran."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import command
from tests.faults import table

LADDER = Path(__file__).with_name("ladder.yaml")
ROWS: list[tuple[str, str, str]] = []
BEGUN = time.monotonic()


@dataclass
class Row:
    """One row of the table; the test says what it expects and has seen."""

    fault: str = ""
    expected: str = ""
    seen: list[str] = field(default_factory=list)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    if report.when == "call":
        item.stash[OUTCOME] = report
    return report


OUTCOME: pytest.StashKey[Any] = pytest.StashKey()


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    made = Row()
    yield made
    report = request.node.stash.get(OUTCOME, None)
    seen = "; ".join(made.seen)
    if report is not None and report.skipped:
        seen = f"not run: {report.longrepr[2].removeprefix('Skipped: ')}"
    elif report is None or report.failed:
        seen = f"FAILED after: {seen or 'nothing'}"
    ROWS.append((made.fault, made.expected, seen.replace("|", "/")))


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the undisturbed run that all of the ladder compare with."""
    storage = tmp_path_factory.mktemp("calm")
    finished = command.run(storage, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return storage


def pytest_sessionfinish(session: pytest.Session) -> None:
    if ROWS:
        text = table.render(ROWS, time.monotonic() - BEGUN)
        print(f"\n{text}")
        # A chosen few would hide the rest of the table.
        if len(ROWS) == len(session.items) and session.config.option.markexpr == "faults":
            table.write(text)
