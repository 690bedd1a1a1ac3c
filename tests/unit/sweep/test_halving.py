"""Halving judges points by all their seeds, as Ray Tune's ASHA would, without a bias, and a resume repeats it."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.errors import ConfigurationError
from continual.sweep.halving import Halving, judge
from continual.sweep.state import State
from continual.sweep.sweep import plan_text, prepare
from tests.kits.sweep import base_sequence, load

ANY: Any = None


class Simulation:
    """Trials with given scores by (point, seed, stage), run one after another as the queue of a sweep runs them."""

    def __init__(self, folder: Path, scores: dict[tuple[int, int, int], float], factor: float = 2.0):
        self.scores, self.path, self.factor = scores, folder / "state.json", factor
        self.stages = max(stage for _, _, stage in scores)
        self.points: dict[int, list[Any]] = {}
        for point, seed in dict.fromkeys((point, seed) for point, seed, _ in scores):
            trial = SimpleNamespace(name=f"{point}-{seed}", point={"k": point}, seed=seed, stages=self.stages)
            self.points.setdefault(point, []).append(trial)
        self.done: dict[str, int] = {}
        self.state = State(self.path)
        self.halving = self.begin()

    def begin(self) -> Halving:
        return Halving(
            self.factor, self.state,
            seeds=lambda trial: self.points[trial.point["k"]],
            values=lambda trial: {k: self.score(trial, k) for k in range(1, self.done.get(trial.name, 0) + 1)},
            judged_by=lambda trial, stage: "score",
        )  # fmt: skip

    def score(self, trial: Any, stage: int) -> float:
        return self.scores[trial.point["k"], trial.seed, stage]

    def run(self, pick: Callable[[int], int], until: int = 10**9) -> None:
        """Run stage after stage of trials that `pick(n)` chooses, at most `until` of them."""
        open_trials = [
            t for ts in self.points.values() for t in ts
            if self.done.get(t.name, 0) < self.stages and t.name not in self.state.stopped
        ]  # fmt: skip
        self.halving.resume(open_trials)
        ready = [t for t in open_trials if t.name not in self.halving.waiting and t.name not in self.state.stopped]
        while ready and until:
            trial = ready.pop(pick(len(ready)))
            until -= 1
            self.done[trial.name] = self.done.get(trial.name, 0) + 1
            if self.halving.decide(trial, self.done[trial.name]) == "continue" and self.done[trial.name] < self.stages:
                ready.append(trial)
            ready += self.halving.released()

    def finished(self) -> dict[int, list[float]]:
        """Return the final scores of the seeds that are done, by point."""
        done = {
            point: [self.score(t, self.stages) for t in trials if self.done.get(t.name, 0) == self.stages]
            for point, trials in self.points.items()
        }
        return {point: values for point, values in done.items() if values}


def noisy(generator: random.Random, points: int = 8, seeds: int = 3, stages: int = 3) -> dict[Any, float]:
    """Return scores of points of one true quality, 0.5; a seed's luck (sd 0.05) is the same after every stage."""
    luck = {(point, seed): generator.gauss(0.5, 0.05) for point in range(points) for seed in range(seeds)}
    return {(*key, stage): value for key, value in luck.items() for stage in range(1, stages + 1)}


def test_every_finished_point_has_all_its_seeds_and_their_mean_has_no_bias(tmp_path: Path) -> None:
    """Trials that were stopped one by one left means that were 0.027 too high, over those seeds that were lucky."""
    generator, first = random.Random(0), []
    for _ in range(60):
        simulation = Simulation(tmp_path, noisy(generator))
        simulation.run(generator.randrange)
        finished = simulation.finished()
        assert finished
        assert {len(values) for values in finished.values()} == {3}
        assert set(finished) | {int(name.split("-")[0]) for name in simulation.state.stopped} == set(range(8))
        # A reported mean is that of all the seeds that were drawn for the point.
        for point, values in finished.items():
            drawn = [simulation.scores[point, seed, 3] for seed in range(3)]
            assert math.isclose(fmean(values), fmean(drawn), abs_tol=1e-12)
        # The first point to be judged is never compared: what is left of it has no reason to be lucky.
        judged = next(iter(next(iter(simulation.state.rungs.values()))))
        first += [fmean(v) for point, v in finished.items() if _digest(point) == judged]
    assert abs(fmean(first) - 0.5) < 4 * 0.05 / math.sqrt(3 * len(first))


def _digest(point: int) -> str:
    from continual.store.files import digest

    return digest({"k": point})


@settings(deadline=None, max_examples=30)  # the first example imports Ray Tune
@given(
    st.lists(st.lists(st.floats(-10, 10), min_size=2, max_size=2), min_size=1, max_size=10),
    st.sampled_from([1.5, 2.0, 4.0]),
)
def test_points_are_stopped_as_ray_tune_stops_their_means(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], factor: float
) -> None:
    from ray.tune.schedulers import ASHAScheduler

    scores = {(p, s, k): v for p, seeds in enumerate(values) for s, v in enumerate(seeds) for k in (1, 2)}
    simulation = Simulation(tmp_path_factory.mktemp("asha"), scores, factor)
    simulation.run(lambda count: 0)
    theirs = ASHAScheduler(time_attr="stage", metric="score", mode="max", max_t=3, grace_period=1,
                           reduction_factor=factor)  # fmt: skip
    wanted = set()
    for point, seeds in enumerate(values):
        trial: Any = SimpleNamespace(trial_id=str(point))
        theirs.on_trial_add(ANY, trial)
        if theirs.on_trial_result(ANY, trial, {"stage": 1, "score": math.fsum(seeds) / 2}) == "STOP":
            wanted |= {f"{point}-0", f"{point}-1"}
    assert set(simulation.state.stopped) == wanted


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_a_resume_repeats_the_verdicts(tmp_path_factory: pytest.TempPathFactory, seed: int, kill: int) -> None:
    scores = noisy(random.Random(seed), points=5, seeds=2)
    whole, killed = (Simulation(tmp_path_factory.mktemp(name), scores) for name in ("whole", "killed"))
    whole.run(lambda count: 0)
    killed.run(lambda count: 0, until=kill)
    verdicts = dict(killed.state.stopped)
    killed.halving = killed.begin()
    killed.run(lambda count: 0)
    assert {name: killed.state.stopped[name] for name in verdicts} == verdicts
    assert {len(values) for values in killed.finished().values()} == {2}
    # A value is judged once, and stays in its place.
    for rungs in (whole.state.rungs, killed.state.rungs):
        assert all(len(rung) == len(set(rung)) for rung in rungs.values())


def test_the_verdict_of_a_point_that_a_kill_left_open_is_made_up_for(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, {(p, s, k): 0.9 - 0.8 * p for p in (0, 1) for s in (0, 1) for k in (1, 2)})
    simulation.run(lambda count: 0, until=4)
    simulation.done["1-0"] = simulation.done["1-1"] = 1  # done, but the sweep was killed before it heard of it
    simulation.halving = simulation.begin()
    simulation.run(lambda count: 0)
    assert set(simulation.state.stopped) == {"1-0", "1-1"}
    assert str(simulation.state.stopped["1-0"]) == "stopped after stage 1: score 0.1 (mean over 2 seeds), below 0.9"


def test_a_score_that_is_no_number_is_the_lowest(tmp_path: Path) -> None:
    values = {0: 0.5, 1: math.nan, 2: 0.6}
    simulation = Simulation(tmp_path, {(p, 0, k): v for p, v in values.items() for k in (1, 2)})
    simulation.run(lambda count: 0)
    assert set(simulation.state.stopped) == {"1-0"}


@pytest.mark.parametrize(
    ("metrics", "first", "second"),
    [
        (["average_score"], "average_score", "average_score"),
        (["b"], "mean score", "b"),  # learned in stage 2
        (["a"], "a", "a"),
        (["forgetting"], "mean score", "mean score"),
        (["forgetting", "average_score"], "average_score", "average_score"),
        (["forgetting_old", "b"], "mean score", "b"),
        (["backward_transfer"], "mean score", "mean score"),
        (["learning_accuracy"], "learning_accuracy", "learning_accuracy"),
    ],
)
def test_what_rewards_not_learning_or_is_not_learned_yet_never_decides(
    project: Path, metrics: list[str], first: str, second: str
) -> None:
    sequence = base_sequence(project)
    assert [judge(sequence, metrics, stage) for stage in (1, 2)] == [first, second]


def test_nothing_is_stopped_before_anything_is_learned(project: Path) -> None:
    sequence = base_sequence(project, "stages.0.tasks=[]", "evaluate.old_tasks=[a]")
    assert judge(sequence, ["average_score"], 1) is None
    with pytest.raises(ConfigurationError, match="no stage before the last one has `tasks`"):
        prepare(load(project, "stages.0.tasks=[]", scheduler="asha"))


def test_the_plan_says_by_what_a_rung_is_judged(project: Path) -> None:
    plan = plan_text(prepare(load(project, scheduler="asha", metric=["forgetting", "b"])))
    assert "the best 1/2 of the points continue, each the mean over its 2 seeds: after stage 1 by mean score" in plan
    assert "(forgetting does not show there what was learned)" in plan
    assert "halving" not in plan_text(prepare(load(project, metric="b")))
