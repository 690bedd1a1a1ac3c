"""Old against new: what a run keeps and what it learns, a point per run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from continual.config.measured import Measured
from continual.forgetting import Score
from continual.show.report.gather import RunData

EARLIER, OLD = "earlier stages' tasks", "old abilities"


@dataclass(frozen=True)
class TradeOff:
    """Mean scores after the last stage."""

    new: Score
    old: Score


def trade_offs(runs: Sequence[RunData]) -> dict[str, list[TradeOff | None]]:
    """Return a point per run by kind of old score, None where a run has none; kinds that no run has are left out.

    New is the mean over the last stage's tasks. Old is the mean over earlier stages' tasks, or over `old_tasks` (if
    there are none: over the texts that no stage learns). Scores of several units have no mean.
    """
    kinds: dict[str, list[TradeOff | None]] = {EARLIER: [], OLD: []}
    for run in runs:
        measured = Measured.of_config(run.config)
        earlier = [name for name in measured.earlier if name not in measured.new]
        kinds[EARLIER].append(_point(run, measured.new, earlier))
        kinds[OLD].append(_point(run, measured.new, measured.old))
    return {kind: points for kind, points in kinds.items() if any(points)}


def _point(run: RunData, new: list[str], old: list[str]) -> TradeOff | None:
    if not (run.finished and (learned := _mean(run, new)) and (kept := _mean(run, old))):
        return None
    return TradeOff(learned, kept)


def _mean(run: RunData, tasks: list[str]) -> Score | None:
    scores, units = run.matrix[-1].scores, {run.unit(task) for task in tasks}
    if len(units) != 1 or not all(task in scores for task in tasks):
        return None
    errors = [error for task in tasks if (error := scores[task].stderr) is not None]
    stderr = math.sqrt(sum(error**2 for error in errors)) / len(tasks) if len(errors) == len(tasks) else None
    return Score(sum(scores[task].score for task in tasks) / len(tasks), stderr, unit=units.pop())
