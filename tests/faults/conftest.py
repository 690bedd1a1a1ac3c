"""Collects the rows of the ladder's table; prints them, and writes them into the manual when the whole ladder ran."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.e2e import command
from tests.faults import table

LADDER = Path(__file__).with_name("ladder.yaml")
ROWS: list[list[Any]] = []


@dataclass
class Row:
    """One row of the table; the test says what it expects and has seen."""

    fault: str = ""
    expected: str = ""
    seen: list[str] = field(default_factory=list)


ROW: pytest.StashKey[Row] = pytest.StashKey()


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    request.node.stash[ROW] = made = Row()
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Send the test's row along with its report, which reaches the process that writes the table."""
    report = yield
    if report.when == "call" and (made := item.stash.get(ROW, None)):
        seen = "; ".join(made.seen)
        if report.skipped:
            seen = f"not run: {report.longrepr[2].removeprefix('Skipped: ')}"
        elif report.failed:
            seen = f"FAILED after: {seen or 'nothing'}"
        place = item.session.items.index(item)
        report.user_properties.append(("row", [place, made.fault, made.expected, seen.replace("|", "/")]))
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
