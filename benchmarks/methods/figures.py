"""The old score at equal new score."""

from collections.abc import Sequence as Values
from itertools import pairwise

Point = tuple[float, float]


def crossing(scores: Values[float], target: float) -> tuple[int, float] | None:
    """Return where scores in the order of training first reach `target`: (k, part) between k and k + 1, linear.

    None if they never do. Never extrapolated: scores that begin above the target have not passed it.
    """
    for place, (before, after) in enumerate(pairwise(scores)):
        if before < target <= after:
            return place, (target - before) / (after - before)
    return None


def at_new_score(curve: Values[Point], target: float) -> float | None:
    """Return the old score where the new one first reaches `target`, linear between two measurements (`crossing`).

    `curve`: (new, old) in the order of training, the first before it.
    """
    if (found := crossing([new for new, _ in curve], target)) is None:
        return None
    place, part = found
    old, later = curve[place][1], curve[place + 1][1]
    return old + part * (later - old)
