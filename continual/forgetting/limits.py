"""How much of a score may be lost: limits by figure, task or text, and the rule by which a loss is above one of them.

The gate of a run (`evaluate.max_forgetting`) and a method that chooses a model by what it lost follow the same rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEAN_LOSSES = ("forgetting", "forgetting_old")
"""The figures that are a mean loss."""
DEFAULT = "default"
"""The key of written limits that is the limit of MEAN_LOSSES."""
ROUNDING = 1e-9
"""A loss may be above its limit by so much: 0.8 - 0.75 is more than 0.05 in floating point."""


@dataclass(frozen=True)
class ScoreLoss:
    """What a task, a text or a mean has lost, in its own unit, with its 95 % interval; None if its error is unknown."""

    value: float
    interval: tuple[float, float] | None = None

    def exceeds(self, limit: float) -> bool:
        """Return whether the loss is above a limit beyond its error: all of its interval; without one, the loss."""
        return (self.value if self.interval is None else self.interval[0]) > limit + ROUNDING

    def is_above(self, limit: float) -> bool:
        """Return whether the loss as it is is above a limit, perhaps by chance."""
        return self.value > limit + ROUNDING

    def as_json(self) -> dict[str, Any]:
        """Return the loss as a ledger has it."""
        return {"value": self.value, "interval": None if self.interval is None else list(self.interval)}


def loss_of(figures: Mapping[str, Any], name: str) -> ScoreLoss | None:
    """Return one loss among the figures after a stage, or of a summary; None where nothing of it is known."""
    value, interval = _found(figures, name), _found(figures.get("interval") or {}, name)
    if value is None:
        return None
    return ScoreLoss(value, None if interval is None else (interval[0], interval[1]))


def losses_of(figures: Mapping[str, Any]) -> dict[str, ScoreLoss]:
    """Return all losses that are known among the figures after a stage: the means, then those by task and text."""
    names = dict.fromkeys([*MEAN_LOSSES, *(figures.get("forgetting_by_task") or {})])
    return {name: loss for name in names if (loss := loss_of(figures, name)) is not None}


def as_limits(given: Any) -> Any:
    """Return limits as they are written: a number alone is that of MEAN_LOSSES."""
    return {DEFAULT: given} if isinstance(given, int | float) and not isinstance(given, bool) else given


def limits_by_name(written: Mapping[str, float] | None, default: float | None = None) -> dict[str, float]:
    """Return written limits by figure, task or text; `default` replaces the one that is written for MEAN_LOSSES."""
    known = dict(written or {})
    of_means = default if default is not None else known.get(DEFAULT)
    own = {name: limit for name, limit in known.items() if name != DEFAULT}
    return (dict.fromkeys(MEAN_LOSSES, of_means) if of_means is not None else {}) | own


def _found(values: Mapping[str, Any], name: str) -> Any:
    return values.get(name) if name in MEAN_LOSSES else (values.get("forgetting_by_task") or {}).get(name)
