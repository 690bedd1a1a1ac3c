"""When a loss is more than chance: a test per task, and Holm's correction for testing several tasks at once."""

import math
from collections.abc import Mapping

LEVEL = 0.05
"""Chance of calling any task's loss certain after a stage that lost nothing."""
Z95 = 1.959963984540054
"""Standard errors on each side of a 95 % interval."""


def one_sided(loss: float, stderr: float | None) -> float | None:
    """Return how probable a loss of at least this size is if nothing was lost (normal); None without an error."""
    if stderr is None:
        return None
    if stderr == 0.0:  # all documents changed alike, or none did
        return 0.0 if loss > 0.0 else 1.0
    return 0.5 * math.erfc(loss / stderr / math.sqrt(2.0))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return p-values adjusted for the number of those that are known (Holm 1979); None stays None."""
    known = sorted((p, task) for task, p in p_values.items() if p is not None)
    adjusted, largest = {}, 0.0
    for rank, (p, task) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[task] = largest
    return {task: adjusted.get(task) for task in p_values}


def fallen(adjusted: Mapping[str, float | None]) -> list[str]:
    """Return the tasks whose adjusted p-value is below LEVEL."""
    return [task for task, p in adjusted.items() if p is not None and p < LEVEL]
