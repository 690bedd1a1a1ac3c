"""Trials are handed out in order, wait for their point, and Optuna suggests points under every seed and resumes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from continual.sweep.state import Stopped
from continual.sweep.sweep import prepare
from tests.kits.sweep import finish, load

NO_TUNER: Any = None
"""Halving does not ask the controller of the trials."""


def test_optuna_resumes_where_it_stopped(project: Path) -> None:
    pytest.importorskip("optuna")
    from continual.sweep.search import SeededOptuna

    space = {"mitigation.0.weight": {"uniform": [0, 1]}, "mitigation.0.loss": {"choice": ["nll", "kl"]}}
    source = load(project, space=space, search="optuna", trials=4)
    sweep = prepare(source)
    trials, recorded = sweep.trials, sweep.state.points

    def searcher() -> SeededOptuna:
        return SeededOptuna(sweep, lambda trial: {"t": trial.name}, print)

    def run(search: SeededOptuna, count: int) -> list[str]:
        names = []
        for number in range(count):
            config = search.suggest(str(number))
            assert isinstance(config, dict)
            names.append(config["t"])
            finish(trials.made[config["t"]], {"a": 0.0, "b": 0.0}, average_score=float(number))
            search.on_trial_complete(str(number), {})
        return names

    first = run(searcher(), 3)
    assert len(recorded) == 2
    assert len(set(first)) == 3
    again = searcher()
    # The first point is told as the mean over its seeds; the second seed of the second one comes next.
    assert [t.values for t in again.study.trials if t.state.is_finished()] == [[0.5]]
    rest = run(again, 5)
    assert rest[0] not in first
    assert trials.made[rest[0]].point == recorded[1]
    assert len(recorded) == 4
    assert len({*first, *rest}) == 8
    assert again.suggest("last") == "FINISHED"
    assert {trials.made[name].seed for name in rest[1:]} == {0, 1}


def test_optuna_is_told_no_mean_over_the_seeds_that_are_left(project: Path) -> None:
    pytest.importorskip("optuna")
    from optuna.trial import TrialState

    from continual.sweep.search import SeededOptuna

    sweep = prepare(load(project, space={"mitigation.0.weight": {"uniform": [0, 1]}}, search="optuna", trials=3))
    search = SeededOptuna(sweep, lambda trial: {"t": trial.name}, print)

    def end(number: int, how: str) -> None:
        config = search.suggest(str(number))
        assert isinstance(config, dict)
        trial = sweep.trials.made[config["t"]]
        if how == "done":
            finish(trial, {"a": 0.0, "b": 0.0}, average_score=0.5)
        elif how == "failed":
            sweep.failed[trial.name] = "broken"
        else:
            sweep.state.stopped[trial.name] = Stopped(1, 0.1, 0.5)
        search.on_trial_complete(str(number), error=how == "failed")

    for number, how in enumerate(["done", "failed", "stopped", "stopped", "done", "done"]):
        end(number, how)
    told = search.study.trials
    assert [trial.state for trial in told] == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert told[2].values == [0.5]


def test_a_trial_waits_for_its_point_and_is_handed_out_again(project: Path) -> None:
    from continual.sweep.halving import Halving
    from continual.sweep.search import PointHalving, Queue

    sweep = prepare(load(project, space={"mitigation.0.weight": {"choice": [0.5, 1.0]}}, scheduler="asha"))
    made = list(sweep.trials.made.values())
    values: dict[str, dict[int, float]] = {trial.name: {} for trial in made}
    halving = Halving(
        2.0, sweep.state,
        seeds=lambda trial: [each for each in made if each.point == trial.point],
        values=lambda trial: values[trial.name],
        judged_by=lambda trial, stage: "average_score",
    )  # fmt: skip
    queue, scheduler = Queue(sweep, lambda trial: {"t": trial.name}, halving), PointHalving(halving, sweep.trials.made)

    def report(number: int, name: str, stage: int, value: float) -> str:
        values[name][stage] = value
        trial: Any = SimpleNamespace(config={"trial": {"name": name}})
        said = scheduler.on_trial_result(NO_TUNER, trial, {"stage": stage})
        if said == "STOP":
            queue.on_trial_complete(str(number))
        return said

    (a0, a1, b0, b1), suggest = [trial.name for trial in made], queue.suggest
    assert suggest("0") == {"t": a0}
    assert report(0, a0, 1, 0.9) == "STOP"
    assert suggest("1") == {"t": a1}
    assert report(1, a1, 1, 0.7) == "CONTINUE"  # the last seed of its point: the mean is the first value of the rung
    assert suggest("2") == {"t": a0}
    assert report(2, a0, 2, 0.9) == "CONTINUE"  # the last stage: nothing is left to stop
    assert suggest("3") == {"t": b0}
    assert report(3, b0, 1, 0.75) == "STOP"
    assert suggest("4") == {"t": b1}
    assert report(4, b1, 1, 0.8) == "STOP"  # 0.775 < 0.8, though 0.75 alone would have passed one seed
    assert set(sweep.state.stopped) == {b0, b1}
    assert suggest("5") is None  # a trial that runs may still release another
    queue.on_trial_complete("1")
    queue.on_trial_complete("2")
    assert suggest("6") == "FINISHED"
