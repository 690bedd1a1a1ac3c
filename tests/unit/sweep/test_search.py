"""Halving decides as Ray Tune does; Optuna suggests points under every seed and resumes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.sweep.state import Stopped
from continual.sweep.sweep import prepare
from tests.kits.sweep import finish, load

NO_TUNER: Any = None
"""Halving does not ask the controller of the trials."""


def verdicts(reports: list[tuple[str, int, float]], factor: float, earlier: list[tuple[int, float]]) -> dict[str, Any]:
    from continual.sweep.search import StageHalving

    stopped: dict[str, Any] = {}

    def stop(name: str, why: Stopped) -> None:
        stopped[name] = (why.stage, why.value, why.threshold)

    scheduler = StageHalving(factor, earlier, stop)
    for name, stage, value in reports:
        config = {"trial": {"name": name, "stages": 2 if name == "short" else 3}}
        trial: Any = SimpleNamespace(trial_id=name, config=config)
        decision = scheduler.on_trial_result(NO_TUNER, trial, {"stage": stage, "mean_score": value})
        assert (decision == "STOP") == (name in stopped)
    return stopped


@settings(deadline=None)  # the first example imports Ray Tune
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.sampled_from([1.5, 2.0, 4.0]))
def test_halving_decides_as_ray_tune_does(values: list[float], factor: float) -> None:
    from ray.tune.schedulers import ASHAScheduler

    ours = verdicts([(str(at), 1, value) for at, value in enumerate(values)], factor, [])
    theirs = ASHAScheduler(time_attr="stage", metric="mean_score", mode="max", max_t=3, grace_period=1,
                           reduction_factor=factor)  # fmt: skip
    stopped = set()
    for at, value in enumerate(values):
        trial: Any = SimpleNamespace(trial_id=str(at))
        theirs.on_trial_add(NO_TUNER, trial)
        if theirs.on_trial_result(NO_TUNER, trial, {"stage": 1, "mean_score": value}) == "STOP":
            stopped.add(str(at))
    assert set(ours) == stopped
    for name, (stage, value, threshold) in ours.items():
        before = sorted(values[: int(name)])
        assert stage == 1
        assert value == values[int(name)] < threshold <= before[-1]


def test_values_of_an_earlier_start_count_and_no_trial_stops_after_its_last_stage() -> None:
    assert verdicts([("bad", 1, 0.1)], 2, [(1, 0.5)]) == {"bad": (1, 0.1, 0.5)}
    assert verdicts([("good", 3, 0.9), ("bad", 3, 0.1)], 2, []) == {}
    assert verdicts([("first", 1, 0.1), ("good", 1, 0.9), ("first", 2, 0.0)], 2, []) == {}
    # Sequences of other lengths beside each other: each has a last stage of its own.
    assert verdicts([("good", 2, 0.9), ("short", 2, 0.1)], 2, []) == {}
    assert verdicts([("good", 2, 0.9), ("bad", 2, 0.1)], 2, []) == {"bad": (2, 0.1, 0.9)}


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
