"""Values of finished trials, means over seeds, the Pareto front and the best point."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.measured import gain_of
from continual.errors import ConfigurationError
from continual.forgetting import read_matrix
from continual.sweep.outputs import report, table
from continual.sweep.results import (
    Outcome,
    judged_values,
    mean_error,
    mean_score,
    outcome,
    pareto_front,
    point_results,
    values_of,
)
from tests.kits.sweep import base_sequence, finish, summary, swept


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=10))
def test_mean_and_error_are_numpys(values: list[float]) -> None:
    mean, error = mean_error(values)
    assert math.isclose(mean, np.mean(values), abs_tol=1e-9)
    if len(values) == 1:
        assert error is None
    else:
        assert error is not None
        assert math.isclose(error, np.std(values, ddof=1) / math.sqrt(len(values)), rel_tol=1e-7, abs_tol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_every_pair_that_no_other_dominates(pairs: list[tuple[float, float]]) -> None:
    def dominated(pair: tuple[float, float]) -> bool:
        return any(o[0] >= pair[0] and o[1] >= pair[1] and o != pair for o in pairs)

    assert pareto_front(pairs) == [i for i, pair in enumerate(pairs) if not dominated(pair)]


def test_old_and_new_scores(project: Path) -> None:
    sequence = base_sequence(project)
    values = values_of(sequence, summary({"a": -1.0, "b": -2.0}, average_score=-1.5))
    assert values == {"a": -1.0, "b": -2.0, "average_score": -1.5, "old": -1.0, "new": -2.0}
    # A task that the last stage learns as well is new.
    both = base_sequence(project, "stages.1.tasks=[a, b]")
    assert values_of(both, summary({"a": -1.0, "b": -2.0}))["new"] == -1.5
    assert "old" not in values_of(both, summary({"a": -1.0, "b": -2.0}))


def test_the_mean_score_is_over_what_is_learned_so_far(project: Path) -> None:
    sequence = base_sequence(project)
    scores = {task: {"score": value, "unit": "nats", "stderr": 0, "n": 1} for task, value in (("a", -1.0), ("b", -3.0))}
    scored = [{"stage": stage, "name": "", "scores": scores} for stage in (0, 1, 2)]
    assert mean_score(sequence, scored, 1) == -1.0
    assert mean_score(sequence, scored, 2) == -2.0
    assert mean_score(sequence, scored[:2], 2) is None
    scores["b"]["unit"] = "acc"
    with pytest.raises(ConfigurationError, match="mix units"):
        mean_score(sequence, scored, 2)


def test_points_best_and_front(project: Path) -> None:
    source, _, trials = swept(project, metric=["forgetting", "average_score"])
    # Temperature 0.7 keeps a, 1.0 learns b, 1.3 is beaten by 1.0 on both.
    values = [(0.9, 0.1), (0.7, 0.3), (0.4, 0.8), (0.2, 1.0), (0.3, 0.5), (0.1, 0.3)]
    for trial, (a, b) in zip(trials, values, strict=True):
        finish(trial, {"a": a, "b": b}, forgetting=1 - a, average_score=(a + b) / 2)
    points = point_results([outcome(trial, {}, {}) for trial in trials], source.ablation.metric)
    assert [point.front for point in points] == [True, True, False]
    assert [point.best for point in points] == [True, False, False]  # forgetting: less is better
    mean, error = points[0].values["average_score"]
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(0.0)
    assert points[1].values["forgetting"] == (pytest.approx(0.7), pytest.approx(np.std([0.6, 0.8], ddof=1) / 2**0.5))
    by_score = point_results([outcome(trial, {}, {}) for trial in trials], ["average_score", "forgetting"])
    assert [point.best for point in by_score] == [False, True, False]


def test_equal_points_are_decided_by_the_second_metric(project: Path) -> None:
    source, _, trials = swept(project, seeds=[0])
    for trial, forgetting in zip(trials, (0.3, 0.2, 0.4), strict=True):
        finish(trial, {"a": 0.5, "b": 0.5}, forgetting=forgetting, average_score=0.5)
    points = point_results([outcome(trial, {}, {}) for trial in trials], ["average_score", "forgetting"])
    assert [point.best for point in points] == [False, True, False]
    assert all(point.front for point in points)
    assert table(source.ablation, points)[2].split("|")[2].strip() == "1"


def test_a_point_that_learned_nothing_is_never_the_best(project: Path) -> None:
    """Its forgetting is the lowest because it had nothing to forget."""
    source, _, trials = swept(project, seeds=[0], metric="forgetting")
    start = {"a": 0.1, "b": 0.1}
    # After stage 1, and at the end: `a` is learned in stage 1, `b` in stage 2.
    scores = [({"a": 0.1, "b": 0.1}, {"a": 0.1, "b": 0.1}), ({"a": 0.9, "b": 0.1}, {"a": 0.7, "b": 0.8}),
              ({"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.9})]  # fmt: skip
    for trial, (first, final) in zip(trials, scores, strict=True):
        finish(trial, final, [start, first], forgetting=first["a"] - final["a"])
    outcomes = [outcome(trial, {}, {}) for trial in trials]
    points = point_results(outcomes, ["forgetting"])
    assert [point.values["forgetting"][0] for point in points] == pytest.approx([0.0, 0.2, 0.7])
    assert [point.gain for point in points] == pytest.approx([0.0, 0.75, 0.8])
    assert [point.learned for point in points] == [False, True, True]
    assert [point.best for point in points] == [False, True, False]
    text = report(source.ablation, outcomes, points)
    assert "learned little: its stages' tasks gained less than 50% of what" in text
    assert [line.rstrip(" |").endswith("learned little") for line in text.splitlines()[2:5]] == [True, False, False]


def test_without_a_metric_the_best_is_the_trade_off_of_the_front(project: Path) -> None:
    """Both ends of the front are the best in one score and nearly the worst in the other."""
    source, _, trials = swept(project, seeds=[0], metric=None)
    assert source.ablation.trade_off
    start = {"a": 0.0, "b": 0.0}
    for trial, (a, b) in zip(trials, [(1.0, 0.5), (0.9, 0.9), (0.4, 1.0)], strict=True):
        finish(trial, {"a": a, "b": b}, [start, {"a": 1.0, "b": 0.0}], average_score=0.5, forgetting=1 - a)
    outcomes = [outcome(trial, {}, {}) for trial in trials]
    points = point_results(outcomes, source.ablation.metric, source.ablation.trade_off)
    assert [point.front for point in points] == [True, True, True]
    assert [point.best for point in points] == [False, True, False]
    assert "best: the trade-off" in report(source.ablation, outcomes, points)


def test_forgetting_never_chooses_a_point_that_another_beats_in_both_scores(project: Path) -> None:
    _, _, trials = swept(project, seeds=[0], metric="forgetting")
    start = {"a": 0.0, "b": 0.0}
    # The third forgets nothing of the little that it learned, and is beaten by the second.
    finals = [(0.5, 1.0, 0.9), (0.8, 0.8, 0.9), (0.6, 0.6, 0.6)]
    for trial, (a, b, learned) in zip(trials, finals, strict=True):
        finish(trial, {"a": a, "b": b}, [start, {"a": learned, "b": 0.0}], forgetting=learned - a)
    points = point_results([outcome(trial, {}, {}) for trial in trials], ["forgetting"])
    assert all(point.learned for point in points)
    assert [point.best for point in points] == [False, True, False]


def test_nats_below_zero_have_a_gain(project: Path) -> None:
    config = base_sequence(project).model_dump(include={"stages", "evaluate"})
    final, start, first = {"a": -2.5, "b": -1.0}, {"a": -4.0, "b": -5.0}, {"a": -1.0, "b": -4.5}
    assert gain_of(config, read_matrix(summary(final, [start, first])["matrix"])) == pytest.approx(
        ((-1.0 + 4.0) + (-1.0 + 5.0)) / 2
    )
    assert gain_of(config, read_matrix(summary(final)["matrix"])) is None


def test_the_stages_of_an_unfinished_trial_are_read_from_its_ledger(project: Path) -> None:
    _, _, trials = swept(project)
    folder = trials[0].loaded.run_folder
    folder.mkdir(parents=True)
    scores = {task: {"score": -1.0, "unit": "nats", "stderr": 0, "n": 1} for task in "ab"}
    events = [{"event": "scored", "stage": stage, "name": "", "scores": scores} for stage in (0, 1)]
    done = {"event": "stage_done", "stage": 1, "name": "one", "model": "m", "hash": "h", "rows": "r"}
    (folder / "ledger.jsonl").write_text("".join(json.dumps(e) + "\n" for e in [*events, done]))
    assert judged_values(trials[0], ["average_score"]) == {1: -1.0}
    assert judged_values(trials[0], ["forgetting"]) == {1: -1.0}
    assert judged_values(trials[1], ["average_score"]) == {}
    assert outcome(trials[0], {}, {}) == Outcome(trials[0], "waiting", "interrupted in stage 2")
