"""Collects the rows of the ladder's table; prints them, and writes them into the manual when the whole ladder ran."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.e2e import command
from tests.faults import provoke, table
from tests.faults.provoke import LADDER, Row

LEFT_SECONDS = 20.0
ROWS: list[list[Any]] = []


ROW: pytest.StashKey[Row] = pytest.StashKey()


@pytest.fixture
def row(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Row]:
    """The test's row. Whatever the fault, no process and no shared memory may be left."""
    request.node.stash[ROW] = made = Row()
    if "calm" in request.fixturenames:
        request.getfixturevalue("calm")
    monkeypatch.setenv(provoke.MARK, str(tmp_path))
    before, since = provoke.shared_memory(), time.time()
    yield made
    left: list[object] = []
    deadline = time.monotonic() + LEFT_SECONDS
    while time.monotonic() < deadline:
        left = [*provoke.started(str(tmp_path), since), *(provoke.shared_memory() - before)]
        if not left:
            return
        time.sleep(0.5)
    pytest.fail(f"left behind: {left}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Send the test's row along with the report of its end, which reaches the process that writes the table."""
    report = yield
    made = item.stash.get(ROW, None)
    if made is None:
        return report
    if report.skipped:
        made.seen = [f"not run: {report.longrepr[2].removeprefix('Skipped: ')}"]
    elif report.failed:
        made.seen = [f"FAILED after: {'; '.join(made.seen) or 'nothing'}"]
    if report.when == "teardown":
        place = item.session.items.index(item)
        seen = "; ".join(made.seen).replace("|", "/")
        report.user_properties.append(("row", [place, made.fault, made.expected, seen]))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    ROWS.extend(cast(list[Any], value) for name, value in report.user_properties if name == "row")


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the undisturbed run that all of the ladder compare with."""
    storage = tmp_path_factory.mktemp("calm")
    finished = command.run(storage, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return storage


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Print the rows; with `-m faults` write them into the manual, where a chosen few take the place of their own."""
    if ROWS and not hasattr(session.config, "workerinput"):
        rows = [tuple(row) for _, *row in sorted(ROWS)]
        print(f"\n{table.render(rows)}")
        option, chosen = session.config.option, session.config.args
        if option.markexpr == "faults":
            whole = not option.keyword and all(Path(name).is_dir() for name in chosen)
            (table.write if whole else table.update)(rows)
