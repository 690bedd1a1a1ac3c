"""R[k, j], the score of task j after stage k, and the figures that are defined on it.

Every figure is a linear combination of scores, so it is computed as one: its coefficients give its value, and its
standard error under the assumption that the scores' errors are independent. They are not quite (all models answer the
same documents), and their correlation is positive, so that the standard error of a difference is on the safe side.

Definitions follow GEM (Lopez-Paz and Ranzato 2017) for backward and forward transfer, RWalk (Chaudhry et al. 2018) for
forgetting and MER (Riemer et al. 2019) for learning accuracy. Higher scores are better; forgetting > 0 means lost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.errors import ConfigurationError, ContinualError

FIGURES = (
    "average_score",
    "forgetting",
    "forgetting_old",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
)
"""Names of the figures that are one number each."""

Cell = tuple[int, str]
"""A place in R: stage, task."""


@dataclass(frozen=True)
class Score:
    """A score (higher is better), its standard error (None: unknown) and how many documents it rests on."""

    score: float
    stderr: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Combination:
    """A weighted sum of cells of R."""

    terms: Mapping[Cell, float]

    def value(self, scores: Mapping[Cell, Score]) -> float:
        return math.fsum(weight * scores[cell].score for cell, weight in self.terms.items())

    def stderr(self, scores: Mapping[Cell, Score]) -> float | None:
        """Root of the sum of (weight x standard error)^2; None as soon as one of them is unknown."""
        errors = [(weight, scores[cell].stderr) for cell, weight in self.terms.items()]
        known = [weight * error for weight, error in errors if error is not None]
        return math.sqrt(math.fsum(e * e for e in known)) if len(known) == len(errors) else None


def mean(parts: Iterable[Combination]) -> Combination | None:
    """The mean of combinations; None, not 0, where there is nothing to average."""
    parts = list(parts)
    terms: dict[Cell, float] = {}
    for part in parts:
        for cell, weight in part.terms.items():
            terms[cell] = terms.get(cell, 0.0) + weight / len(parts)
    return Combination(terms) if parts else None


def difference(later: Cell, earlier: Cell) -> Combination:
    """R at `later` minus R at `earlier`."""
    return Combination({later: 1.0, earlier: -1.0})


def read(matrix: Sequence[Mapping[str, Any]], needed: Iterable[str]) -> tuple[dict[Cell, Score], list[str], list[str]]:
    """Cells, stage names by number, and tasks of `summary.json`'s matrix, whatever the order of its entries.

    Raises ContinualError if a stage is missing or doubled, or if a score is missing or not a finite number: a figure
    from an incomplete matrix would look like any other.
    """
    entries = sorted(matrix, key=lambda entry: entry["stage"])
    if [entry["stage"] for entry in entries] != list(range(len(entries))):
        found = ", ".join(str(entry["stage"]) for entry in entries)
        raise ContinualError(f"the matrix must hold every stage from 0 on once; it holds {found}")
    tasks = sorted({*needed, *(task for entry in entries for task in entry["scores"])})
    scores: dict[Cell, Score] = {}
    for entry in entries:
        for task in tasks:
            cell = entry["scores"].get(task) or {}
            value, error, place = (
                cell.get("score"),
                cell.get("stderr"),
                f"after stage {entry['stage']} ({entry['name']})",
            )
            if value is None:
                raise ContinualError(f"task `{task}` has no score {place}")
            if not math.isfinite(value) or (error is not None and not math.isfinite(error)):
                raise ContinualError(f"task `{task}` scored {value} +- {error} {place}, which is no finite number")
            scores[entry["stage"], task] = Score(value, error, cell.get("n"))
    return scores, [entry["name"] for entry in entries], tasks


def check_units(stage_tasks: Sequence[Sequence[str]], old_tasks: Sequence[str], units: Mapping[str, str]) -> None:
    """Refuse means of unlike things. Raises ConfigurationError; call it as soon as stage 0 is scored."""
    for key, names in (("stages", [t for tasks in stage_tasks for t in tasks]), ("evaluate.old_tasks", old_tasks)):
        by_unit: dict[str, str] = {}
        for name in names:
            if name not in units:
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
    """The figures of one matrix as they stood after any of its stages."""

    def __init__(self, scores: Mapping[Cell, Score], tasks: list[str], learned: Mapping[str, int], old: list[str]):
        """`learned`: the stage (1-based) that learns a task, its first; `old`: tasks that the start model has."""
        self.scores, self.tasks, self.learned, self.old = scores, tasks, learned, old

    def lost(self, task: str, stage: int, since: int) -> Combination | None:
        """The best of R[since..stage-1, task] (the first, if equal) minus R[stage, task]."""
        if stage <= since:
            return None
        best = max(range(since, stage), key=lambda at: (self.scores[at, task].score, -at))
        return difference((best, task), (stage, task))

    def combinations(self, stage: int) -> dict[str, Combination | None]:
        """The single-number figures after `stage`."""
        learned = {task: at for task, at in self.learned.items() if at <= stage}
        earlier = {task: at for task, at in learned.items() if at < stage}
        return {
            "average_score": mean(Combination({(stage, task): 1.0}) for task in learned),
            "forgetting": mean(c for task, at in earlier.items() if (c := self.lost(task, stage, at))),
            "forgetting_old": mean(c for task in self.old if (c := self.lost(task, stage, 0))),
            "backward_transfer": mean(difference((stage, task), (at, task)) for task, at in earlier.items()),
            # Before the first stage nothing was learned that could transfer, so its tasks do not count.
            "forward_transfer": mean(difference((at - 1, task), (0, task)) for task, at in learned.items() if at > 1),
            "learning_accuracy": mean(Combination({(at, task): 1.0}) for task, at in learned.items()),
        }

    def by_task(self, stage: int) -> dict[str, Combination | None]:
        """What is lost of every task; from stage 0 on for all but the stages' own tasks.

        A stage's task that is an old task as well counts as old here.
        """
        since = {task: 0 if task in self.old else self.learned.get(task, 0) for task in self.tasks}
        return {task: self.lost(task, stage, since[task]) for task in self.tasks}

    def after(self, stage: int) -> dict[str, Any]:
        """All figures after `stage`, and under `stderr` their standard errors in the same shape."""
        single, by_task = self.combinations(stage), self.by_task(stage)
        values: dict[str, Any] = {name: c and c.value(self.scores) for name, c in single.items()}
        errors: dict[str, Any] = {name: c and c.stderr(self.scores) for name, c in single.items()}
        values["forgetting_by_task"] = {task: c and c.value(self.scores) for task, c in by_task.items()}
        errors["forgetting_by_task"] = {task: c and c.stderr(self.scores) for task, c in by_task.items()}
        return {**values, "stderr": errors}


def figures(
    matrix: Sequence[Mapping[str, Any]],
    stage_tasks: Sequence[Sequence[str]],
    old_tasks: Sequence[str],
    units: Mapping[str, str],
) -> dict[str, Any]:
    """The figures of a sequence, after the last stage that `matrix` holds.

    `matrix`: a list of {"stage": k, "name", "scores": {task: {"score", "stderr", "n"}}}, stage 0 being the start model.
    `stage_tasks`: the tasks of stage 1, 2, ...; one that several stages list is learned at the first of them.
    `old_tasks`: tasks that the start model has. Whatever else is in the matrix (texts) counts as old in
    `forgetting_by_task` and in no mean. `units`: the unit of every task's score.

    Returns the names in FIGURES and `forgetting_by_task` (task -> number), each None where nothing can be averaged;
    `stderr`, their standard errors; and `history`, the same for every stage from 0 on with `stage` and `name`.
    Raises ConfigurationError where units are mixed, ContinualError for a missing or not finite score.
    """
    learned: dict[str, int] = {}
    for number, tasks in enumerate(stage_tasks, 1):
        for task in tasks:
            learned.setdefault(task, number)
    old = list(dict.fromkeys(old_tasks))
    scores, names, tasks = read(matrix, {*learned, *old})
    if scores:
        check_units(stage_tasks, old, units)
    reader = Reader(scores, tasks, learned, old)
    history = [{"stage": stage, "name": name, **reader.after(stage)} for stage, name in enumerate(names)]
    # Nothing scored at all has the figures of the start: none.
    return {**reader.after(max(0, len(names) - 1)), "history": history}
