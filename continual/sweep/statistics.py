"""Means over seeds, their standard errors, and which points no other one beats on both scores. Pure Python."""

import math
from collections.abc import Sequence


def mean_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error, s / sqrt(n) with s over n - 1; None for the error of a single value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def pareto_front(pairs: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the pairs that no other pair beats: at least as high in both, higher in one. In their order."""
    order = sorted(range(len(pairs)), key=lambda at: (-pairs[at][0], -pairs[at][1]))
    front: list[int] = []
    best = -math.inf
    for at in order:
        second = pairs[at][1]
        equal = bool(front) and pairs[front[-1]] == pairs[at]
        if second > best or equal:
            front.append(at)
            best = max(best, second)
    return sorted(front)
