"""The figures that are defined on the matrix R, where R[k, j] is the score of task j after stage k.

Every figure is a linear combination of scores, and is computed as one: its coefficients give its value, and its
standard error if the errors of the scores are independent. They are not quite: all models answer the same documents.
Their correlation is positive, which makes the standard error of a difference too large rather than too small.

Definitions follow GEM (Lopez-Paz and Ranzato 2017) for backward and forward transfer, RWalk (Chaudhry et al. 2018) for
forgetting and MER (Riemer et al. 2019) for learning accuracy. Higher scores are better; forgetting > 0 is a loss.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.errors import ConfigurationError, ContinualError
from continual.forgetting.matrix import Matrix, StageScores, tasks_of, units_of
from continual.forgetting.score import Score

FIGURES = (
    "average_score",
    "forgetting",
    "forgetting_old",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
)
"""Names of the figures that are a single number."""

Cell = tuple[int, str]
"""A cell of R: stage, task."""


@dataclass(frozen=True)
class Combination:
    """A weighted sum of cells of R."""

    terms: Mapping[Cell, float]

    def value(self, scores: Mapping[Cell, Score]) -> float:
        """Return the sum for these scores."""
        return math.fsum(weight * scores[cell].score for cell, weight in self.terms.items())

    def stderr(self, scores: Mapping[Cell, Score]) -> float | None:
        """Return the root of the sum of (weight x standard error)^2; None if any of the errors is unknown."""
        errors = [(weight, scores[cell].stderr) for cell, weight in self.terms.items()]
        known = [weight * error for weight, error in errors if error is not None]
        return math.sqrt(math.fsum(e * e for e in known)) if len(known) == len(errors) else None


def mean(parts: Iterable[Combination]) -> Combination | None:
    """Return the mean of combinations; None, not 0, if there are none."""
    parts = list(parts)
    terms: dict[Cell, float] = {}
    for part in parts:
        for cell, weight in part.terms.items():
            terms[cell] = terms.get(cell, 0.0) + weight / len(parts)
    return Combination(terms) if parts else None


def difference(later: Cell, earlier: Cell) -> Combination:
    """Return R at `later` minus R at `earlier`."""
    return Combination({later: 1.0, earlier: -1.0})


def cells_of(matrix: Matrix, tasks: Iterable[str]) -> dict[Cell, Score]:
    """Return the cells of the matrix for these tasks.

    Raises ContinualError if a stage is missing or doubled, or if a score is missing or not finite: a figure from an
    incomplete matrix would look like any other.
    """
    stages = [row.stage for row in matrix]
    if stages != list(range(len(matrix))):
        listed = ", ".join(map(str, stages))
        raise ContinualError(f"the matrix must hold every stage from 0 on once; it holds {listed}")
    cells: dict[Cell, Score] = {}
    for row in matrix:
        for task in tasks:
            score, place = row.scores.get(task), f"after stage {row.stage} ({row.name})"
            if score is None:
                raise ContinualError(f"task `{task}` has no score {place}")
            if not math.isfinite(score.score) or not math.isfinite(score.stderr or 0.0):
                numbers = f"{score.score} +- {score.stderr}"
                raise ContinualError(f"task `{task}` scored {numbers} {place}, which is not a finite number")
            cells[row.stage, task] = score
    return cells


def check_units(stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str], units: Mapping[str, str]) -> None:
    """Raise ConfigurationError if an average would mix units; call it as soon as stage 0 is scored."""
    for key, names in (("stages", [t for tasks in stage_tasks for t in tasks]), ("evaluate.old_tasks", old_tasks)):
        by_unit: dict[str, str] = {}
        for name in names:
            if not units.get(name):
                raise ContinualError(f"task `{name}` has no unit")
            by_unit.setdefault(units[name], name)
        if len(by_unit) > 1:
            parts = " and ".join(f"`{name}` ({unit})" for unit, name in by_unit.items())
            raise ConfigurationError(
                key,
                f"the mean over {parts} would mix units",
                "choose one `metric` for all of them, or measure texts under `evaluate.texts`",
            )


class Reader:
    """The figures of one matrix after any of its stages."""

    def __init__(self, scores: Mapping[Cell, Score], tasks: list[str], learned: Mapping[str, int], old: list[str]):
        """`learned`: the first stage (1-based) that learns a task; `old`: tasks that the start model knows."""
        self.scores, self.tasks, self.learned, self.old = scores, tasks, learned, old

    def lost(self, task: str, stage: int, since: int) -> Combination | None:
        """Return the best of R[since..stage-1, task] (the first, if equal) minus R[stage, task]."""
        if stage <= since:
            return None
        best = max(range(since, stage), key=lambda k: (self.scores[k, task].score, -k))
        return difference((best, task), (stage, task))

    def combinations(self, stage: int) -> dict[str, Combination | None]:
        """Return the single-number figures after `stage`."""
        learned = {task: first for task, first in self.learned.items() if first <= stage}
        earlier = {task: first for task, first in learned.items() if first < stage}
        return {
            "average_score": mean(Combination({(stage, task): 1.0}) for task in learned),
            "forgetting": mean(c for task, first in earlier.items() if (c := self.lost(task, stage, first))),
            "forgetting_old": mean(c for task in self.old if (c := self.lost(task, stage, 0))),
            "backward_transfer": mean(difference((stage, task), (first, task)) for task, first in earlier.items()),
            # Nothing is learned before the first stage that could transfer, so its tasks do not count.
            "forward_transfer": mean(difference((k - 1, task), (0, task)) for task, k in learned.items() if k > 1),
            "learning_accuracy": mean(Combination({(first, task): 1.0}) for task, first in learned.items()),
        }

    def by_task(self, stage: int) -> dict[str, Combination | None]:
        """Return what is lost of every task: since it was learned, or since stage 0 if no stage learns it.

        A task that is learned by a stage and is an old task as well counts as old here.
        """
        since = {task: 0 if task in self.old else self.learned.get(task, 0) for task in self.tasks}
        return {task: self.lost(task, stage, since[task]) for task in self.tasks}

    def after(self, stage: int) -> dict[str, Any]:
        """Return all figures after `stage`, and under `stderr` their standard errors in the same shape."""
        single, by_task = self.combinations(stage), self.by_task(stage)
        values: dict[str, Any] = {name: c and c.value(self.scores) for name, c in single.items()}
        errors: dict[str, Any] = {name: c and c.stderr(self.scores) for name, c in single.items()}
        values["forgetting_by_task"] = {task: c and c.value(self.scores) for task, c in by_task.items()}
        errors["forgetting_by_task"] = {task: c and c.stderr(self.scores) for task, c in by_task.items()}
        return {**values, "stderr": errors}


def figures(matrix: Matrix, stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a sequence after the last stage that `matrix` holds.

    Args:
        matrix: the scores after every stage from 0, the start model, on; see `read_matrix`.
        stage_tasks: the tasks of stage 1, 2, ...; one that several stages list is learned at the first of them.
        old_tasks: tasks that the start model knows. Whatever else is in the matrix (texts) counts as old in
            `forgetting_by_task` and is part of no mean.

    Returns:
        The names in FIGURES and `forgetting_by_task` (task -> number), each None where there is nothing to average;
        `stderr`, their standard errors; and `history`, the same for every stage from 0 on with `stage` and `name`.

    Raises:
        ConfigurationError: a mean would mix units.
        ContinualError: a score is missing or not finite.
    """
    matrix, reader = _read(matrix, stage_tasks, old_tasks)
    history = [{"stage": row.stage, "name": row.name, **reader.after(row.stage)} for row in matrix]
    # A matrix without rows has the figures of the start: none.
    return {**reader.after(max(0, len(matrix) - 1)), "history": history}


def last_figures(matrix: Matrix, stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str]) -> dict[str, Any]:
    """Return what `figures` does without `history`, which takes as long as all stages before took together."""
    matrix, reader = _read(matrix, stage_tasks, old_tasks)
    return reader.after(max(0, len(matrix) - 1))


def _read(
    matrix: Matrix, stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str]
) -> tuple[list[StageScores], Reader]:
    """Check a matrix; return it in the order of its stages, and its reader."""
    learned: dict[str, int] = {}
    for number, tasks in enumerate(stage_tasks, 1):
        for task in tasks:
            learned.setdefault(task, number)
    old = list(dict.fromkeys(old_tasks))
    rows = sorted(matrix, key=lambda row: row.stage)
    columns = sorted({*learned, *old, *tasks_of(rows)})
    scores = cells_of(rows, columns)
    if scores:
        check_units(stage_tasks, old, units_of(rows))
    return rows, Reader(scores, columns, learned, old)
