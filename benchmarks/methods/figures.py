"""The old score at equal new score."""

from collections.abc import Sequence as Values
from itertools import pairwise

Point = tuple[float, float]


def at_new_score(curve: Values[Point], target: float) -> float | None:
    """The old score where the new one first reaches `target`, linear between two measurements; None if it never does.

    `curve`: (new, old) in the order of training, the first before it. Never extrapolated: a curve that begins above
    the target has not passed it.
    """
    for (new, old), (later_new, later_old) in pairwise(curve):
        if new < target <= later_new:
            part = (target - new) / (later_new - new)
            return old + part * (later_old - old)
    return None
