"""What became of the trials, and of the points over their seeds."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continual.config.schema import Sequence
from continual.forgetting import FIGURES, check_units
from continual.ledger.ledger import read_events
from continual.run.resume import finished
from continual.run.summary import figures_of, matrix_of, old_names
from continual.store.files import digest
from continual.sweep.space import Point
from continual.sweep.state import Stopped
from continual.sweep.statistics import mean_error, pareto_front
from continual.sweep.trials import Trial, higher_is_better

OLD, NEW = "old", "new"


@dataclass(frozen=True)
class Outcome:
    """A trial: `done`, `stopped`, `failed` or `waiting` (interrupted, or never begun); `why` in words.

    `values` are the figures, the final score of every task (by its name), and the old and the new score; only of a
    trial that is done, and without what has nothing to average.
    """

    trial: Trial
    state: str
    why: str = ""
    values: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass
class PointResult:
    """A point: {value name: (mean over the seeds that are done, standard error)}, `n` seeds of `of`."""

    point: Point
    n: int
    of: int
    values: dict[str, tuple[float, float | None]]
    front: bool = False
    best: bool = False


def outcome(trial: Trial, stopped: Mapping[str, Stopped], failed: Mapping[str, str]) -> Outcome:
    """What is on disk of a trial; a stop or a failure that is known otherwise."""
    summary = finished(trial.loaded.run_folder, trial.loaded)
    if summary is not None:
        return Outcome(trial, "done", "", values_of(trial.loaded.sequence, summary), summary)
    if trial.name in stopped:
        return Outcome(trial, "stopped", str(stopped[trial.name]))
    if trial.name in failed:
        return Outcome(trial, "failed", failed[trial.name])
    begun = read_events(trial.loaded.run_folder, "stage_done")
    return Outcome(trial, "waiting", f"interrupted in stage {len(begun) + 1}" if begun else "")


def values_of(sequence: Sequence, summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers by which a finished trial is compared."""
    final = {task: score["score"] for task, score in summary["matrix"][-1]["scores"].items()}
    found = {**final, **{name: summary[name] for name in FIGURES}, **_old_and_new(sequence, final, summary["unit"])}
    return {name: value for name, value in found.items() if value is not None}


def _old_and_new(sequence: Sequence, final: Mapping[str, float], units: Mapping[str, str]) -> dict[str, float | None]:
    """The mean final score of what the last stage was to learn, and of what was known before it.

    What was known are the tasks of the stages before and `old_tasks` (texts, where there are none); where these have
    other units than the stages' tasks, the stages' tasks alone, if there are any.
    """
    new = [task.name for task in sequence.stages[-1].tasks]
    earlier = [task.name for stage in sequence.stages[:-1] for task in stage.tasks]
    old = list(dict.fromkeys([*earlier, *old_names(sequence)]))
    if earlier and len({units[name] for name in old}) > 1:
        old = earlier
    old = [name for name in old if name not in new]
    return {OLD: _mean(final, old, units), NEW: _mean(final, new, units)}


def _mean(final: Mapping[str, float], names: list[str], units: Mapping[str, str]) -> float | None:
    """None where there is nothing to average, or where units would be mixed."""
    if not names or len({units[name] for name in names}) > 1:
        return None
    return math.fsum(final[name] for name in names) / len(names)


def mean_score(sequence: Sequence, scored: list[dict[str, Any]], stage: int) -> float | None:
    """The mean score after `stage` over the tasks learned so far and `old_tasks`, by which trials are halved.

    None without such tasks. Raises ConfigurationError where it would mix units.
    """
    names = [task.name for learned in sequence.stages[:stage] for task in learned.tasks]
    names = list(dict.fromkeys([*names, *(task.name for task in sequence.evaluate.old_tasks)]))
    events = [event for event in scored if event["stage"] == stage]
    if not names or not events:
        return None
    scores = events[-1]["scores"]
    check_units([names], [], {name: scores[name]["unit"] for name in names})
    return math.fsum(scores[name]["score"] for name in names) / len(names)


def history(trial: Trial) -> list[tuple[int, float]]:
    """(stage, mean score) of the stages that a trial has done."""
    scored = read_events(trial.loaded.run_folder, "scored")
    stages = range(1, max((event["stage"] for event in scored), default=0) + 1)
    found = [(stage, mean_score(trial.loaded.sequence, scored, stage)) for stage in stages]
    return [(stage, value) for stage, value in found if value is not None]


def figures_after(sequence: Sequence, scored: list[dict[str, Any]], stage: int) -> dict[str, float]:
    """The figures and scores after a stage, of those that there are: what a trial reports."""
    known = [event for event in scored if event["stage"] <= stage]
    entry = figures_of(sequence, known)["history"][stage]
    scores = {task: score["score"] for task, score in matrix_of(known)[stage]["scores"].items()}
    return {name: value for name, value in (scores | {n: entry[n] for n in FIGURES}).items() if value is not None}


def point_results(outcomes: list[Outcome], metrics: list[str]) -> list[PointResult]:
    """The points in the order of their first trial, with the best one and the front of old against new marked.

    The best has the best mean of the first metric among the points with most seeds done; the second metric decides
    between equals. The front is taken over the same points.
    """
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(digest(one.trial.point), []).append(one)
    found = []
    for group in groups.values():
        done = [one for one in group if one.state == "done"]
        names = [name for name in (done[0].values if done else ()) if all(name in one.values for one in done)]
        values = {name: mean_error([one.values[name] for one in done]) for name in names}
        found.append(PointResult(group[0].trial.point, len(done), len(group), values))
    most = max((point.n for point in found), default=0)
    whole = [point for point in found if point.n == most and most]
    pairs = [point for point in whole if OLD in point.values and NEW in point.values]
    for at in pareto_front([(point.values[OLD][0], point.values[NEW][0]) for point in pairs]):
        pairs[at].front = True
    ranked = [point for point in whole if all(metric in point.values for metric in metrics)]
    if ranked:
        sign = {metric: 1.0 if higher_is_better(metric) else -1.0 for metric in metrics}
        max(ranked, key=lambda p: [sign[m] * p.values[m][0] for m in metrics]).best = True
    return found


def as_json(outcomes: list[Outcome], points: list[PointResult], metrics: list[str]) -> str:
    """`sweep.json`: every trial with its state and numbers, every point with means and errors."""
    samples = {name for one in outcomes for name in one.summary.get("samples", [])}
    stages = sum(len(one.summary["stages"]) for one in outcomes if one.summary)
    reused = sum(len(one.summary["reused_stages"]) for one in outcomes if one.summary)
    found = {
        "metric": metrics,
        "sample_sets": len(samples),
        "stages": stages,
        "trained_stages": stages - reused,
        "trials": [
            {
                "name": one.trial.name,
                "point": one.trial.point,
                "seed": one.trial.seed,
                "state": one.state,
                "why": one.why,
                "values": one.values,
                "mlflow_run_id": one.summary.get("mlflow_run_id"),
            }
            for one in outcomes
        ],
        "points": [
            {
                "point": one.point,
                "n": one.n,
                "mean": {name: mean for name, (mean, _) in one.values.items()},
                "stderr": {name: error for name, (_, error) in one.values.items()},
                "front": one.front,
                "best": one.best,
            }
            for one in points
        ],
    }
    return json.dumps(found, indent=1)
