"""The figures that are defined on the matrix R, where R[k, j] is the score of task j after stage k.

Every figure is a linear combination of scores, and is computed as one. All models answer the same documents: where
their outcomes are known, the errors of differences are paired by document, and losses are also given without the bias
that choosing the best stage brings (`continual.forgetting.paired`). Elsewhere scores count as independent, which makes
the standard error of a difference too large rather than too small.

Definitions follow GEM (Lopez-Paz and Ranzato 2017) for backward and forward transfer, RWalk (Chaudhry et al. 2018) for
forgetting and MER (Riemer et al. 2019) for learning accuracy. Higher scores are better; forgetting > 0 is a loss.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from continual.errors import ConfigurationError, ContinualError
from continual.forgetting.combination import Cell
from continual.forgetting.matrix import Matrix, StageScores, tasks_of, units_of
from continual.forgetting.reader import Reader
from continual.forgetting.score import Score


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


def figures(
    matrix: Matrix, stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str], outcomes: Mapping[Cell, Any] = {}
) -> dict[str, Any]:
    """Return the figures of a sequence after the last stage that `matrix` holds.

    Args:
        matrix: the scores after every stage from 0, the start model, on; see `read_matrix`.
        stage_tasks: the tasks of stage 1, 2, ...; one that several stages list is learned at the first of them.
        old_tasks: tasks that the start model knows. Whatever else is in the matrix (texts) counts as old in
            `forgetting_by_task` and is part of no mean.
        outcomes: `continual.forgetting.outcomes.Outcomes` by stage and task, as far as they are known.

    Returns:
        The names in FIGURES and `forgetting_by_task` (task -> number), each None where there is nothing to average;
        `stderr`, their standard errors; `interval`, the ends of their 95 % intervals, of losses around the corrected
        ones; `corrected`, losses without the bias of choosing the best stage, None where documents are unknown or too
        few; by task `forgotten` and `gained`, the shares of documents that were right at the best stage and are wrong
        now, and the reverse, and `p_value`; `fell`, the tasks whose loss is certain; `paired`, the tasks whose errors
        are paired by document; and `history`, the same for every stage from 0 on with `stage` and `name`.

    Raises:
        ConfigurationError: a mean would mix units.
        ContinualError: a score is missing or not finite.
    """
    matrix, reader = _read(matrix, stage_tasks, old_tasks, outcomes)
    history = [{"stage": row.stage, "name": row.name, **reader.after(row.stage)} for row in matrix]
    # A matrix without rows has the figures of the start: none.
    return {**reader.after(max(0, len(matrix) - 1)), "history": history}


def last_figures(
    matrix: Matrix, stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str], outcomes: Mapping[Cell, Any] = {}
) -> dict[str, Any]:
    """Return what `figures` does without `history`, which takes as long as all stages before took together."""
    matrix, reader = _read(matrix, stage_tasks, old_tasks, outcomes)
    return reader.after(max(0, len(matrix) - 1))


def _read(
    matrix: Matrix, stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str], outcomes: Mapping[Cell, Any]
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
    return rows, Reader(scores, columns, learned, old, _paired(rows, columns, outcomes) if outcomes else {})


def _paired(matrix: Matrix, tasks: Iterable[str], outcomes: Mapping[Cell, Any]) -> dict[str, Any]:
    """Return a `Paired` for every task that has outcomes of the same documents in all rows."""
    from continual.forgetting.outcomes import same_documents
    from continual.forgetting.paired import Paired

    found = {}
    for task in tasks:
        of_task = [outcomes.get((row.stage, task)) for row in matrix]
        known = [one for one in of_task if one is not None]
        if len(known) == len(of_task) and same_documents(known):
            found[task] = Paired([row.scores[task].score for row in matrix], known)
    return found
