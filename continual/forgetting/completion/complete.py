"""Models that complete the row of an unseen task from a few of its cells and the rows of known tasks.

A model is fitted to the known rows [M, N] once, and completes any number of new rows from K known cells each. All but
`logistic` take M x M x N steps at most, which are seconds for 85 tasks and 140,000 documents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from continual.errors import ConfigurationError
from continual.forgetting.completion.baseline import baseline
from continual.forgetting.completion.factors import leading
from continual.forgetting.completion.logistic import logistic

NEIGHBOURS = 40
"""Most rows that are averaged; Surprise's default."""
RANK = 5
"""Factors, as in Jin & Ren."""
PENALTIES = np.append(np.inf, 10.0 ** np.arange(3.5, -8.5, -0.5))
"""Ridge penalties among which `factors` chooses, as parts of the largest squared singular value of the design."""

Completion = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the places of known cells, int [K], and their values [K] to a whole row [N]."""


@dataclass(frozen=True)
class Model:
    """A way to complete a row. `fit`: from the known rows [M, N] to what completes new ones.

    `probability`: it takes and gives only what is between 0 and 1, for associations of kind `lost`.
    """

    fit: Callable[[np.ndarray], Completion]
    probability: bool = False

    def __call__(self, known: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return a whole row [N] from known rows [M, N] and K cells of the row: places, int [K], and values [K]."""
        return self.fit(known)(columns, values)


def additive(known: np.ndarray) -> Completion:
    """z_j = mu + b_j + a: the columns' means of the known rows and the row's shift, both shrunk (`Baseline`).

    Exact where rows differ by a constant alone.
    """
    base = baseline(known)
    return lambda columns, values: base.columns + base.shift(columns, values)


def neighbours(known: np.ndarray) -> Completion:
    """The additive model plus the mean rest of the nearest known rows, weighted by similarity (Surprise's KNNBaseline).

    The similarity is 1 / (d + 1), where d is the mean squared difference of the rests at the K cells. Surprise takes d
    from the ratings themselves, in their units; here it is in units of the rests' variance, because changes of some
    hundredths of a nat would make all rows alike.
    """
    base = baseline(known)
    scale = float(np.mean(base.rest**2)) or 1.0

    def complete(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
        row = base.columns + base.shift(columns, values)
        distance = np.mean((base.rest[:, columns] - (values - row[columns])) ** 2, axis=1) / scale
        nearest = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        weights = 1.0 / (distance[nearest] + 1.0)
        return np.asarray(row + weights / weights.sum() @ base.rest[nearest])

    return complete


def factors(known: np.ndarray) -> Completion:
    """The additive model plus RANK products p_k q_kj, whose q are the first right singular vectors of the known rests.

    The row's shift a and its p are found together, by ridge regression at the K cells. Each is scaled to its standard
    deviation over the known rows, so that one penalty holds for all: that of PENALTIES whose errors on cells left out
    one at a time are smallest; at infinity only mu + b_j is left. Jin & Ren instead fit all of mu + b_i + b_j + p_i q_j
    at once to known and new cells (Surprise's SVD: stochastic gradient descent from small random numbers, 1000 epochs,
    no penalty), which is slow, depends on the seed, and is stopped, not solved.
    """
    base = baseline(known)
    if base.cell == 0.0:  # nothing is left for factors
        return additive(known)
    _, sizes, vectors = leading(base.rest, RANK)
    products = sizes[:, None] * vectors / np.sqrt(len(known))

    def complete(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
        scale = np.full((1, len(base.columns)), np.sqrt(base.variance(columns, values)))
        design = np.vstack([scale, products])
        return base.columns + ridge(design[:, columns].T, values - base.columns[columns]) @ design

    return complete


def ridge(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the coefficients [P] of a ridge regression of values [K] on a design [K, P].

    The penalty is that of PENALTIES with the smallest sum of squares of the leave-one-out errors e_i / (1 - h_ii).
    """
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    if not sizes.size or sizes[0] == 0.0:
        return np.zeros(design.shape[1])
    shrink = sizes**2 / (sizes**2 + PENALTIES[:, None] * sizes[0] ** 2)
    along = left.T @ values
    errors = (values - (shrink * along) @ left.T) / (1.0 - shrink @ (left**2).T)
    best = np.argmin(np.sum(errors**2, axis=1))
    return np.asarray((shrink[best] * np.divide(along, sizes, out=np.zeros_like(along), where=sizes > 0.0)) @ right)


def mean(known: np.ndarray) -> Completion:
    """The mean of the K cells, for every column: what is known of the row without the other rows."""
    return lambda columns, values: np.full(known.shape[1], np.mean(values))


def chance(known: np.ndarray) -> Completion:
    """Cells of the known rows in random order, another one for other places of the K cells."""
    cells = known.ravel()
    return lambda columns, values: np.random.default_rng(columns).choice(cells, known.shape[1], replace=False)


MODELS = {
    "additive": Model(additive),
    "neighbours": Model(neighbours),
    "factors": Model(factors),
    "logistic": Model(logistic, probability=True),
    "mean": Model(mean),
    "random": Model(chance),
}


def probes(count: int, documents: int, seed: int | Sequence[int]) -> np.ndarray:
    """Return the places of the documents to measure of an unseen task: int [count], each once, in order.

    Raises ConfigurationError if there are fewer documents than that.
    """
    if not 1 <= count <= documents:
        problem = f"{count} of {documents} documents cannot be drawn"
        raise ConfigurationError("probes", problem, f"give 1 to {documents}")
    return np.sort(np.random.default_rng(seed).choice(documents, count, replace=False))
