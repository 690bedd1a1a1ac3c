"""Old against new: what a run keeps and what it learns, a point per run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from continual.config.measured import Measured
from continual.forgetting import Score
from continual.show.report.gather import RunData

EARLIER, OLD = "earlier stages' tasks", "old abilities"


@dataclass(frozen=True)
class TradeOff:
    """Mean scores: `new` of what was learned when it was learned, `old` of what was known before, at the end."""

    new: Score
    old: Score


def trade_offs(runs: Sequence[RunData]) -> dict[str, list[TradeOff | None]]:
    """Return a point per run by kind of old score, None where a run has none; kinds that no run has are left out.

    New is the mean over the tasks of all stages, each after the stage that learns it first. Old is the mean, after the
    last stage, over the tasks of earlier stages, or over `old_tasks` (if there are none: over the texts that no stage
    learns). Scores of several units have no mean.
    """
    kinds: dict[str, list[TradeOff | None]] = {EARLIER: [], OLD: []}
    for run in runs:
        measured = Measured.of_config(run.config)
        earlier = [name for name in measured.earlier if name not in measured.new]
        for kind, old in ((EARLIER, earlier), (OLD, measured.old)):
            kinds[kind].append(_point(run, measured.stage_tasks, old))
    return {kind: points for kind, points in kinds.items() if any(points)}


def _point(run: RunData, stage_tasks: list[list[str]], old: list[str]) -> TradeOff | None:
    if not run.finished:
        return None
    rows, last = {row.stage: row.scores for row in run.matrix}, run.matrix[-1].scores
    first = {task: stage for stage in range(len(stage_tasks), 0, -1) for task in stage_tasks[stage - 1]}
    learned = mean_score(run, {task: rows.get(stage, {}).get(task) for task, stage in first.items()})
    kept = mean_score(run, {task: last.get(task) for task in old})
    return TradeOff(learned, kept) if learned and kept else None


def mean_score(run: RunData, found: Mapping[str, Score | None]) -> Score | None:
    """Return the mean of scores by task; None where one is missing, or where their units differ."""
    scores, units, tasks = {t: s for t, s in found.items() if s}, {run.unit(task) for task in found}, list(found)
    if len(units) != 1 or len(scores) < len(found):
        return None
    errors = [error for task in tasks if (error := scores[task].stderr) is not None]
    stderr = math.sqrt(sum(error**2 for error in errors)) / len(tasks) if len(errors) == len(tasks) else None
    return Score(sum(scores[task].score for task in tasks) / len(tasks), stderr, unit=units.pop())
