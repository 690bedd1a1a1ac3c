"""A drift budget: the replay weight as the multiplier of a constraint, found by dual ascent while training."""

import math

START_WEIGHT = 1.0
LEAST, MOST = 1e-3, 1e3
"""Bounds of the weight: below it, a budget that nothing exceeds would drive it out of reach; above, training stops."""
LARGEST_STEP = math.log(2.0)


def dual_step(weight: float, drift: float, budget: float, rate: float) -> float:
    """Return the next weight of the replay component: weight x (drift / budget)^rate, at most doubled or halved.

    Minimising the task's loss subject to drift <= budget has the Lagrangian loss + weight x (drift - budget); its
    multiplier rises while the constraint is violated and falls while there is room. The step is multiplicative, an
    exponentiated-gradient ascent on log drift, so it needs no scale: the same rate serves budgets of any size.
    `drift` and `budget` in nats per token; a drift of zero or less (rounding) counts as none.
    """
    step = rate * math.log(max(drift, 1e-12) / budget)
    return min(max(weight * math.exp(min(max(step, -LARGEST_STEP), LARGEST_STEP)), LEAST), MOST)
