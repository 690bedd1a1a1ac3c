"""Read what became of the trials, and compare the points by their means over seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from continual.config.measured import LEAST_GAIN, Measured, figures_of, gain_of
from continual.config.schema import Sequence
from continual.forgetting import FIGURES, check_units, read_matrix, units_of
from continual.ledger.ledger import read_events
from continual.run.resume import finished
from continual.store.files import digest
from continual.sweep.halving import MEAN_SCORE, judge
from continual.sweep.points import Point
from continual.sweep.state import Stopped
from continual.sweep.trials import NEW, OLD, Trial, higher_is_better

FLATTERING = ("forgetting", "forgetting_old", "backward_transfer", "forward_transfer")
"""Figures that are best for a model that learns nothing, and so has nothing to forget."""


@dataclass(frozen=True)
class Outcome:
    """The state of a trial: `done`, `stopped`, `failed` or `waiting` (interrupted or not yet begun), with its reason.

    `values` of a trial that is done are the figures, the final score of every task by the task's name, and the old and
    the new score; those without anything to average are left out. `gain` is what its stages' tasks gained (`gain_of`).
    """

    trial: Trial
    state: str
    why: str = ""
    values: dict[str, float] = field(default_factory=dict)
    gain: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass
class PointResult:
    """A point with {name of a value: (mean over the `n` of its `of` seeds that are done, standard error)}.

    `gain` is the mean of its trials'. `learned` is false if that is less than LEAST_GAIN of the largest one.
    """

    point: Point
    n: int
    of: int
    values: dict[str, tuple[float, float | None]]
    gain: float | None = None
    learned: bool = True
    front: bool = False
    best: bool = False


def outcome(trial: Trial, stopped: Mapping[str, Stopped], failed: Mapping[str, str]) -> Outcome:
    """Return the outcome of a trial from its run's folder, and from the stops and failures that are known by name."""
    summary = finished(trial.loaded.run_folder, trial.loaded)
    if summary is not None:
        sequence = trial.loaded.sequence
        return Outcome(
            trial,
            "done",
            "",
            values_of(sequence, summary),
            gain_of(_config(sequence), read_matrix(summary["matrix"])),
            summary,
        )
    if trial.name in stopped:
        return Outcome(trial, "stopped", str(stopped[trial.name]))
    if trial.name in failed:
        return Outcome(trial, "failed", failed[trial.name])
    done = read_events(trial.loaded.run_folder, "stage_done")
    return Outcome(trial, "waiting", f"interrupted in stage {len(done) + 1}" if done else "")


def _config(sequence: Sequence) -> dict[str, Any]:
    return sequence.model_dump(include={"stages", "evaluate"})


def values_of(sequence: Sequence, summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers by which a finished trial is compared."""
    final = {task: score.score for task, score in read_matrix(summary["matrix"])[-1].scores.items()}
    values = {
        **final,
        **{name: summary.get(name) for name in FIGURES},
        **_old_and_new(sequence, final, summary["unit"]),
    }
    return {name: value for name, value in values.items() if value is not None}


def _old_and_new(sequence: Sequence, final: Mapping[str, float], units: Mapping[str, str]) -> dict[str, float | None]:
    """Return the mean final score of the last stage's tasks, and of what the model knew before that stage.

    That is the tasks of the earlier stages and `old_tasks` (without any, the texts). If their units differ, only the
    tasks of the earlier stages count, if there are any.
    """
    measured = Measured.of(sequence)
    new, earlier = measured.new, measured.earlier
    old = list(dict.fromkeys([*earlier, *measured.old]))
    if earlier and len({units[name] for name in old}) > 1:
        old = earlier
    return {OLD: _mean(final, [name for name in old if name not in new], units), NEW: _mean(final, new, units)}


def _mean(final: Mapping[str, float], names: list[str], units: Mapping[str, str]) -> float | None:
    """Return the mean score, None if there is nothing to average or the units differ."""
    if not names or len({units[name] for name in names}) > 1:
        return None
    return fmean(final[name] for name in names)


def mean_score(sequence: Sequence, scored: list[dict[str, Any]], stage: int) -> float | None:
    """Return the mean score after `stage` over the tasks learned so far and `old_tasks`.

    Old tasks of another unit do not count. None without tasks. Raises ConfigurationError if the units of the learned
    ones differ.
    """
    measured = Measured.of(sequence)
    learned = list(dict.fromkeys(name for tasks in measured.stage_tasks[:stage] for name in tasks))
    matrix = [row for row in read_matrix(scored) if row.stage == stage]
    if not matrix:
        return None
    units = units_of(matrix)
    check_units([learned], [], units)
    old = [name for name in measured.old_tasks if not learned or units[name] == units[learned[0]]]
    names = list(dict.fromkeys([*learned, *old]))
    return fmean(matrix[0].scores[name].score for name in names) if names else None


def judged_values(trial: Trial, metrics: list[str]) -> dict[int, float]:
    """Return, by stage, what a trial is halved by after the stages that it has done; empty before the first."""
    scored, sequence = read_events(trial.loaded.run_folder, "scored"), trial.loaded.sequence
    values = {}
    for stage in range(1, max((event["stage"] for event in scored), default=0) + 1):
        name = judge(sequence, metrics, stage)
        if name == MEAN_SCORE:
            value = mean_score(sequence, scored, stage)
        else:
            value = figures_after(sequence, scored, stage).get(name) if name else None
        if value is not None:
            values[stage] = value
    return values


def figures_after(sequence: Sequence, scored: list[dict[str, Any]], stage: int) -> dict[str, float]:
    """Return what a trial reports after a stage: the figures and scores that exist by then."""
    matrix = [row for row in read_matrix(scored) if row.stage <= stage]
    figures = figures_of(sequence, matrix)["history"][stage]
    scores = {task: score.score for task, score in matrix[stage].scores.items()}
    values = scores | {name: figures[name] for name in FIGURES}
    return {name: value for name, value in values.items() if value is not None}


def point_results(outcomes: list[Outcome], metrics: list[str], trade_off: bool = False) -> list[PointResult]:
    """Return the points in the order of their first trial; mark the best one and the Pareto front of old and new score.

    Only the points with the most seeds done are compared. The best one has the best mean of the first metric; the
    second metric decides between equals. With `trade_off` it is the point of the front with the largest `balance`, and
    the metrics decide between equals. A point that learned little is never the best one, nor is one that another point
    beats in both scores if the first metric is among FLATTERING.
    """
    groups: dict[str, list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault(digest(each.trial.point), []).append(each)
    results = [_point_result(group) for group in groups.values()]
    most = max((point.n for point in results), default=0)
    complete = [point for point in results if point.n == most and most]
    pairs = [point for point in complete if OLD in point.values and NEW in point.values]
    for i in pareto_front([(point.values[OLD][0], point.values[NEW][0]) for point in pairs]):
        pairs[i].front = True
    largest = max((point.gain for point in complete if point.gain is not None), default=0.0)
    for point in complete:
        point.learned = point.gain is None or point.gain >= LEAST_GAIN * largest
    ranked = [point for point in complete if point.learned and all(metric in point.values for metric in metrics)]
    front = [point for point in ranked if point.front]
    if front and (trade_off or metrics[0] in FLATTERING):
        ranked = front
    if ranked:
        signs = {metric: 1.0 if higher_is_better(metric) else -1.0 for metric in metrics}
        balances = balance(ranked) if front and trade_off else [0.0] * len(ranked)
        keys = [[sign * point.values[metric][0] for metric, sign in signs.items()] for point in ranked]
        best = max(range(len(ranked)), key=lambda i: (balances[i], keys[i]))
        ranked[best].best = True
    return results


def _point_result(group: list[Outcome]) -> PointResult:
    done = [each.values for each in group if each.state == "done"]
    names = [name for name in (done[0] if done else ()) if all(name in values for values in done)]
    means = {name: mean_error([values[name] for values in done]) for name in names}
    gains = [each.gain for each in group if each.gain is not None]
    return PointResult(group[0].trial.point, len(done), len(group), means, fmean(gains) if gains else None)


def balance(points: list[PointResult]) -> list[float]:
    """Return, for points with an old and a new score, the mean of both, each scaled from 0 (lowest) to 1 (highest)."""
    scaled = []
    for name in (OLD, NEW):
        scores = [point.values[name][0] for point in points]
        low, high = min(scores), max(scores)
        scaled.append([(score - low) / (high - low) if high > low else 0.0 for score in scores])
    return [round(fmean(pair), 9) for pair in zip(*scaled, strict=True)]


def best_of(points: list[PointResult]) -> PointResult | None:
    """Return the point that is marked as the best one."""
    return next((point for point in points if point.best), None)


def mean_error(values: list[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error s / sqrt(n), with n - 1 in s; None for the error of a single value."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def pareto_front(pairs: list[tuple[float, float]]) -> list[int]:
    """Return the positions of the pairs that no other pair dominates, i.e. is as high in both and higher in one."""

    def dominated(pair: tuple[float, float]) -> bool:
        return any(other[0] >= pair[0] and other[1] >= pair[1] and other != pair for other in pairs)

    return [i for i, pair in enumerate(pairs) if not dominated(pair)]
