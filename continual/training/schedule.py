"""The learning rate as a pure function of the step, and the schedules that come with the package."""

import math

from continual.contract.registry import SCHEDULES


def constant(progress: float) -> float:
    """Return the factor of the peak at `progress` (0 to 1) after the warm-up; here and below."""
    return 1.0


def linear(progress: float) -> float:
    return 1.0 - progress


def cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def learning_rate(step: int, steps: int, peak: float, schedule: str, warmup_steps: int) -> float:
    """Return the learning rate of optimizer step `step` (0-based) of `steps`.

    The warm-up rises linearly from peak / warmup_steps to the peak at step warmup_steps - 1. The schedule covers the
    remaining steps: its progress is 0 at their first and would be 1 at step `steps`, so that no step has no effect.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return peak * SCHEDULES.load(schedule)(progress)
