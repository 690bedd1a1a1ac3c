"""The rank correlation of points that several runs have left, and how sure it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LEAST = 5
"""Fewest points of a correlation, and fewest runs of its interval."""
RESAMPLES = 2000
"""They give the ends of the interval to a few hundredths of its width."""
SEED = 0


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation. `interval`: the ends of its 95 % interval; None where too few runs tell it."""

    spearman: float
    interval: tuple[float, float] | None
    points: int
    runs: int


def correlation(x: ArrayLike, y: ArrayLike, runs: ArrayLike) -> Correlation | None:
    """Return the rank correlation of points (x, y), each of which belongs to a run; None for fewer than LEAST points.

    Ranks, because a divergence spans orders of magnitude and scores do not fall in proportion to it: one run that has
    come apart would decide Pearson's r. The stages of a run are not independent: the interval is from a bootstrap that
    draws whole runs, with replacement (percentiles; draws in which all x or all y are equal have no correlation and are
    left out). Of fewer than LEAST runs there is no interval.
    """
    columns, numbers = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)]), np.asarray(runs)
    whole = _spearman(columns) if len(numbers) >= LEAST else None
    if whole is None:
        return None
    places = [np.flatnonzero(numbers == run) for run in np.unique(numbers)]
    ends = _interval(columns, places) if len(places) >= LEAST else None
    return Correlation(whole, ends, len(numbers), len(places))


def _interval(columns: np.ndarray, places: list[np.ndarray]) -> tuple[float, float] | None:
    random = np.random.default_rng(SEED)
    drawn = random.integers(len(places), size=(RESAMPLES, len(places)))
    found = [_spearman(columns[:, np.concatenate([places[run] for run in runs])]) for runs in drawn]
    known = [value for value in found if value is not None]
    if len(known) < RESAMPLES / 2:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _spearman(columns: np.ndarray) -> float | None:
    """Return Pearson's correlation of the ranks of both columns [2, N], equal values sharing theirs; None without."""
    from scipy.stats import rankdata  # as slow to import as all else of a report

    if np.any(np.ptp(columns, axis=1) == 0.0):
        return None
    ranks = rankdata(columns, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return float(ranks[0] @ ranks[1] / np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
