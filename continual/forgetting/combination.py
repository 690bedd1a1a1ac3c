"""Weighted sums of scores, with their standard errors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.forgetting.score import Score

Cell = tuple[int, str]
"""A cell of R: stage, task."""


@dataclass(frozen=True)
class Combination:
    """A weighted sum of cells of R."""

    terms: Mapping[Cell, float]

    def value(self, scores: Mapping[Cell, Score]) -> float:
        """Return the sum for these scores."""
        return math.fsum(weight * scores[cell].score for cell, weight in self.terms.items())

    def stderr(self, scores: Mapping[Cell, Score], paired: Mapping[str, Any]) -> float | None:
        """Return the standard error; None if it is unknown.

        It is the root of the sum of the squared errors of the tasks, whose documents are different ones. Of a task that
        is `paired` they are those of its documents; elsewhere (weight x standard error)^2 of each score.
        """
        errors: list[float | None] = []
        for task in {task for _, task in self.terms}:
            weights = {stage: weight for (stage, of), weight in self.terms.items() if of == task}
            if task in paired:
                errors.append(paired[task].stderr(weights))
            else:
                own = {stage: scores[stage, task].stderr for stage in weights}
                errors += [None if error is None else weights[stage] * error for stage, error in own.items()]
        return root_sum(errors)


def root_sum(errors: Iterable[float | None]) -> float | None:
    """Return the root of the sum of squares of independent errors; None if one is unknown."""
    known: list[float] = []
    for error in errors:
        if error is None:
            return None
        known.append(error)
    return math.sqrt(math.fsum(error * error for error in known))


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


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean; None, not 0, if there are none or one is unknown."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def mean_error(errors: Sequence[float | None]) -> float | None:
    """Return the standard error of the mean of independent values; None if there are none or one is unknown."""
    total = root_sum(errors)
    return None if total is None or not errors else total / len(errors)
