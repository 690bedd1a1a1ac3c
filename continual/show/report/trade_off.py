"""Old against new: what a run keeps against what it learns, one point per run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from continual.show.report.gather import RunData

EARLIER, OLD = "earlier stages' tasks", "old abilities"


@dataclass(frozen=True)
class TradeOff:
    """Mean scores after the last stage, with their standard errors (None: unknown) and units."""

    new: float
    new_stderr: float | None
    new_unit: str
    old: float
    old_stderr: float | None
    old_unit: str


def trade_offs(runs: Sequence[RunData]) -> dict[str, list[TradeOff | None]]:
    """By kind of old score, a point per run, None where it has none; kinds that no run has are left out.

    New is the mean over the last stage's tasks. Old is the mean over earlier stages' tasks, or over `old_tasks` (where
    there are none: over the texts that no stage is to learn). Means over scores of several units do not exist.
    """
    found = {
        EARLIER: [_point(run, _earlier(run)) for run in runs],
        OLD: [_point(run, _old(run)) for run in runs],
    }
    return {kind: points for kind, points in found.items() if any(points)}


def _last(run: RunData) -> list[str]:
    return [task["name"] for task in run.config["stages"][-1]["tasks"]]


def _earlier(run: RunData) -> list[str]:
    names = [task["name"] for stage in run.config["stages"][:-1] for task in stage["tasks"]]
    return [name for name in dict.fromkeys(names) if name not in _last(run)]


def _old(run: RunData) -> list[str]:
    """As `continual.run.summary.old_names`, from the configuration as it was written."""
    learned = {*_last(run), *_earlier(run)}
    tasks = [task["name"] for task in run.config["evaluate"]["old_tasks"]]
    return tasks or [text["name"] for text in run.config["evaluate"]["texts"] if text["name"] not in learned]


def _point(run: RunData, old: list[str]) -> TradeOff | None:
    if not run.finished:
        return None
    scores = run.summary["matrix"][-1]["scores"]
    parts = [_mean(run, scores, tasks) for tasks in (_last(run), old)]
    if parts[0] is None or parts[1] is None:
        return None
    return TradeOff(*parts[0], *parts[1])


def _mean(run: RunData, scores: dict[str, Any], tasks: list[str]) -> tuple[float, float | None, str] | None:
    units = {run.unit(task) for task in tasks}
    if len(units) != 1 or not all(task in scores for task in tasks):
        return None
    errors = [scores[task]["stderr"] for task in tasks]
    stderr = None if None in errors else math.sqrt(sum(error**2 for error in errors)) / len(tasks)
    return sum(scores[task]["score"] for task in tasks) / len(tasks), stderr, units.pop()
