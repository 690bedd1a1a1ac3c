"""What a task lost since its best stage, from its documents: error, the value without the bias of the maximum.

The best of several noisy scores is, on average, above the best of the true ones, so that a model that forgets nothing
shows a loss. The corrected value chooses the best stage on nine tenths of the documents and measures the loss on the
rest, for each tenth in turn: choice and measurement are independent, and where nothing is lost its mean is 0. Where two
stages are nearly equally good it may take the worse one, and is a little too small instead. Its error comes from a
bootstrap that draws all tenths anew. tests/unit/forgetting/test_coverage.py has the simulation.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from continual.forgetting.outcomes import Outcomes, stderr_of

FOLDS = 10
RESAMPLES = 1000
"""They give a standard error to 2 %."""
BLOCKS = 1000
"""Most units that are drawn again: of more documents, neighbors by the hash are drawn together."""


@dataclass(frozen=True)
class Loss:
    """A loss with its standard error, and the same without the bias of choosing the best stage.

    That is None where there are too few documents to choose on some and measure on others.
    """

    value: float
    stderr: float | None
    corrected: float | None
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
        return stderr_of(np.sum([weight * self.influence[stage] for stage, weight in weights.items()], axis=0))

    def best(self, since: int, stage: int) -> int:
        """Return the best stage from `since` to before `stage`, the first of equal ones."""
        return since + int(np.argmax(self.scores[since:stage]))

    def loss(self, since: int, stage: int) -> Loss:
        """Return what is lost after `stage` from the best of the stages from `since` on."""
        value = float(self.scores[self.best(since, stage)] - self.scores[stage])
        error = self.stderr({self.best(since, stage): 1.0, stage: -1.0})
        if stage - since == 1:  # nothing is chosen
            return Loss(value, error, value, error)
        if self.influence.shape[1] < 2 * FOLDS:
            return Loss(value, error, None, None)
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
    def order(self) -> np.ndarray:
        """Places of the documents, by the hash of their names: neighbors in the data may be alike."""
        names = self.outcomes[0].documents
        order = sorted(range(len(names)), key=lambda place: hashlib.sha256(names[place].encode()).digest())
        return np.array(order)

    @cached_property
    def by_fold(self) -> np.ndarray:
        """Scores on the documents of each fold [FOLDS, stages]."""
        count = len(self.order)
        folds = [self.order[fold::FOLDS] for fold in range(FOLDS)]
        return np.stack([self.scores + self.influence[:, fold].sum(1) * (count / len(fold)) for fold in folds])

    @cached_property
    def resampled(self) -> np.ndarray:
        """Scores on folds of documents that are drawn from all of them [RESAMPLES, FOLDS, stages]."""
        blocks = np.array_split(self.order, min(len(self.order), BLOCKS))
        sums = np.stack([self.influence[:, block].sum(1) for block in blocks])
        count = len(blocks)
        sizes = [len(range(fold, count, FOLDS)) for fold in range(FOLDS)]
        drawn = [_times(count, size, fold) @ sums * (count / size) for fold, size in enumerate(sizes)]
        return self.scores + np.stack(drawn, axis=1)


@lru_cache(maxsize=4 * FOLDS)
def _times(units: int, draws: int, seed: int) -> np.ndarray:
    """Return how often each of some units is drawn in each resample [RESAMPLES, units]."""
    return np.random.default_rng(seed).multinomial(draws, np.full(units, 1 / units), RESAMPLES).astype(np.float64)


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
