"""The learning rate as a pure function of the step."""

import math
from typing import Literal


def learning_rate(
    step: int, steps: int, peak: float, schedule: Literal["constant", "linear", "cosine"], warmup_steps: int
) -> float:
    """Learning rate of optimizer step `step` (0-based) of `steps`.

    Warm-up rises linearly from peak / warmup_steps to the peak at step warmup_steps - 1. After it `linear` and `cosine`
    fall over the remaining steps towards 0, which they would reach at step `steps`: no step is without effect.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return peak * (1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress)))
