"""When a sweep connects to a cluster: for trials that are left, and for what its results lack beside them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from continual.sweep import execute
from continual.sweep.outputs import COMPARISON, Results, Written
from continual.sweep.sweep import Sweep, prepare
from tests.kits.sweep import finish, load

RESOURCES = {"CPU": 2.0}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened, in its order."""
    happened: list[str] = []

    @contextmanager
    def connected(guard: Any) -> Iterator[dict[str, float]]:
        happened.append("connected")
        yield RESOURCES
        happened.append("disconnected")

    def run_trials(sweep: Any, terminal: Any, run_id: Any, resources: Any) -> None:
        assert resources == RESOURCES
        happened.append("trials")
        sweep.done = True

    monkeypatch.setattr("continual.run.cluster.connected", connected)
    monkeypatch.setattr("continual.sweep.runner.run_trials", run_trials)
    return happened


def results(seen: list[str], lacking: bool) -> Results:
    def measure(outcomes: Any, resources: Any, terminal: Any) -> None:
        assert resources == RESOURCES
        seen.append("measured")

    def write(folder: Path, source: Any, outcomes: Any) -> Written:
        seen.append("written")
        return Written("")

    return Results(write, (), lambda outcomes: lacking and bool(outcomes), measure)


@pytest.mark.parametrize(
    ("done", "lacking", "expected"),
    [
        (True, False, []),
        (True, True, ["connected", "measured", "disconnected"]),
        (False, True, ["connected", "trials", "measured", "disconnected"]),
        (False, False, ["connected", "trials", "disconnected"]),
    ],
)
def test_one_cluster_runs_what_is_left_and_measures_what_is_lacking(
    seen: list[str], done: bool, lacking: bool, expected: list[str]
) -> None:
    sweep: Any = SimpleNamespace(done=done)
    sweep.finished = lambda: sweep.done
    sweep.outcomes = lambda: ["an outcome"] if sweep.done else []
    terminal: Any = None
    execute._run_what_is_missing(sweep, results(seen, lacking), terminal, None, terminal)
    assert seen == expected


def closed(project: Path) -> Sweep:
    """A sweep all of whose trials are done, and whose run in the tracker is closed."""
    for trial in prepare(load(project)).trials.made.values():
        finish(trial, {"a": 0.5, "b": 0.5}, average_score=0.5)
    sweep = prepare(load(project))
    sweep.folder.mkdir(parents=True)
    sweep.state.close(True)
    return sweep


@pytest.mark.parametrize(("lacking", "expected"), [(False, ["written"]), (True, ["run"])])
def test_a_closed_sweep_begins_again_only_if_its_results_lack_something(
    project: Path, monkeypatch: pytest.MonkeyPatch, seen: list[str], lacking: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(execute, "Guard", lambda *_: nullcontext())
    monkeypatch.setattr(execute, "_run", lambda *_: seen.append("run"))
    execute.run_sweep(closed(project), False, results(seen, lacking))
    assert seen == expected


def test_a_comparison_of_points_lacks_nothing() -> None:
    assert not COMPARISON.lacks([])
