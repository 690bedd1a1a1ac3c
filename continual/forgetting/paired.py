"""What a task lost since its best stage, from its documents: error, the value without the bias of the maximum.

The best of several noisy scores is, on average, above the best of the true ones, so that a model that forgets nothing
shows a loss. The corrected value chooses the best stage on four fifths of the documents and measures the loss on the
rest, for each fifth in turn: choice and measurement are independent, and where nothing is lost its mean is 0. Where two
stages are nearly equally good it may take the worse one, and is a little too small instead. Its error comes from a
bootstrap of the documents within the fifths. tests/unit/forgetting/test_coverage.py has the simulation.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from continual.forgetting.outcomes import Outcomes, norm_of

FOLDS = 5
RESAMPLES = 1000
"""They give a standard error to 2 %."""
BLOCKS = 400
"""Most units of a fold that are drawn again: of more documents, neighbors by the hash are drawn together."""


@dataclass(frozen=True)
class Loss:
    """A loss with its standard error, and the same without the bias of choosing the best stage."""

    value: float
    stderr: float | None
    corrected: float
    corrected_stderr: float | None


class Paired:
    """A task whose scores of all stages come from the same documents."""

    def __init__(self, scores: Sequence[float], outcomes: Sequence[Outcomes]):
        """`scores` and `outcomes` of the stages from 0 on."""
        self.scores = np.array(scores)
        self.outcomes = outcomes
        self.influence = np.stack([one.influence for one in outcomes])
        """[stages, D]"""

    def stderr(self, weights: dict[int, float]) -> float | None:
        """Return the standard error of a weighted sum of the scores of some stages."""
        return norm_of(np.sum([weight * self.influence[stage] for stage, weight in weights.items()], axis=0))

    def best(self, since: int, stage: int) -> int:
        """Return the best stage from `since` to before `stage`, the first of equal ones."""
        return since + int(np.argmax(self.scores[since:stage]))

    def loss(self, since: int, stage: int) -> Loss:
        """Return what is lost after `stage` from the best of the stages from `since` on."""
        value = float(self.scores[self.best(since, stage)] - self.scores[stage])
        if stage - since == 1 or self.influence.shape[1] < 2 * FOLDS:
            error = self.stderr({self.best(since, stage): 1.0, stage: -1.0})
            return Loss(value, error, value, error)
        columns = [*range(since, stage), stage]
        drawn = self.resampled[:, :, columns]
        corrected = float(cross_fitted(self.by_fold[None, :, columns])[0])
        return Loss(value, _spread(_naive(drawn)), corrected, _spread(cross_fitted(drawn)))

    def forgotten(self, since: int, stage: int) -> tuple[float, float] | None:
        """Return the share of the documents that was right at the best stage and is wrong now, and the reverse.

        Their difference is the loss. None where documents may be partly right.
        """
        before, now = self.outcomes[self.best(since, stage)], self.outcomes[stage]
        if before.right is None or now.right is None:
            return None
        share = now.weight
        return float(share[before.right & ~now.right].sum()), float(share[~before.right & now.right].sum())

    @cached_property
    def folds(self) -> list[np.ndarray]:
        """Places of the documents of each fold, by the hash of their names: neighbors may be alike."""
        names = self.outcomes[0].documents
        order = sorted(range(len(names)), key=lambda place: hashlib.sha256(names[place].encode()).digest())
        return [np.array(order[fold::FOLDS]) for fold in range(FOLDS)]

    @cached_property
    def by_fold(self) -> np.ndarray:
        """Scores on the documents of each fold [FOLDS, stages]."""
        return np.stack([self._score(self.influence[:, fold].sum(1), len(fold)) for fold in self.folds])

    @cached_property
    def resampled(self) -> np.ndarray:
        """Scores on documents that are drawn again within each fold [RESAMPLES, FOLDS, stages]."""
        scores = []
        for number, fold in enumerate(self.folds):
            blocks = np.array_split(fold, min(len(fold), BLOCKS))
            sums = np.stack([self.influence[:, block].sum(1) for block in blocks])
            scores.append(self._score(_times(len(blocks), number) @ sums, len(fold)))
        return np.stack(scores, axis=1)

    def _score(self, influence: np.ndarray, size: int) -> np.ndarray:
        """Return scores on `size` documents from the sums of their influences [..., stages]."""
        return self.scores + influence * (self.influence.shape[1] / size)


@lru_cache(maxsize=64)
def _times(size: int, seed: int) -> np.ndarray:
    """Return how often each of `size` units is drawn in each resample [RESAMPLES, size]."""
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)


def _naive(scores: np.ndarray) -> np.ndarray:
    """Return the best of the first scores minus the last, of [..., FOLDS, stages]."""
    mean = scores.mean(1)
    return np.max(mean[:, :-1], axis=1) - mean[:, -1]


def cross_fitted(scores: np.ndarray) -> np.ndarray:
    """Return what is lost in the last stage [R] since the best one, from scores by fold [R, FOLDS, stages].

    The best stage of each fold is chosen on the other folds.
    """
    others = scores.sum(1, keepdims=True) - scores
    best = np.argmax(others[:, :, :-1], axis=2)
    chosen = np.take_along_axis(scores, best[:, :, None], axis=2)[:, :, 0]
    return np.asarray((chosen - scores[:, :, -1]).mean(1))


def _spread(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1))
