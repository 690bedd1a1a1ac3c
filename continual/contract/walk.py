"""What a method measured on a walk from the trained weights to others: candidates one after another until one holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continual.forgetting import ScoreLoss


@dataclass(frozen=True)
class Tried:
    """A model on the walk.

    Attributes:
        alpha: Its share of the trained weights.
        drift: Its drift in nats per token; None if it was not measured.
        stderr: The standard error of the drift; infinite if it is unknown.
        losses: What it would have lost by name, as far as that is known; None if it was not evaluated.
    """

    alpha: float
    drift: float | None = None
    stderr: float = math.inf
    losses: Mapping[str, ScoreLoss] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what was measured; what was not is left out."""
        drift = {} if self.drift is None else {"drift": self.drift, "stderr": self.stderr}
        losses = {name: loss.as_json() for name, loss in (self.losses or {}).items()}
        return {"alpha": self.alpha, **drift, **({} if self.losses is None else {"losses": losses})}


@dataclass(frozen=True)
class Walk:
    """A walk, in the order in which its models were tried.

    Attributes:
        toward: What it leads to, in a word.
        tried: The models; the last one continues the sequence if any holds.
        alpha: The share of the trained weights in what continues; None: none holds, and the stage is undone.
        drift_budget: The largest drift that holds, in nats per token; None: any.
        limits: The largest losses that hold, by name.
        curve: The artefact's address under which the method keeps it; "" if it keeps none.
    """

    toward: str
    tried: tuple[Tried, ...]
    alpha: float | None
    drift_budget: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    curve: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the walk as a ledger, summary.json and the report have it: what is unknown or not finite is null."""
        tried = [one.as_json() for one in self.tried]
        for one in tried:
            one |= {key: None for key in ("drift", "stderr") if not math.isfinite(one.get(key, 0.0))}
        return {
            "toward": self.toward, "alpha": self.alpha, "drift_budget": self.drift_budget,
            "limits": dict(self.limits), "curve": self.curve, "tried": tried,
        }  # fmt: skip


def is_walk(value: Any) -> bool:
    """Return whether a value of JSON is a walk as `Walk.as_json` writes it."""
    if not isinstance(value, dict) or not isinstance(value.get("toward"), str):
        return False
    alpha, budget, tried, limits = (value.get(key) for key in ("alpha", "drift_budget", "tried", "limits"))
    if not (_is_number(alpha, True) and _is_number(budget, True) and isinstance(limits, dict)):
        return False
    return isinstance(tried, list) and all(map(_is_tried, tried)) and all(map(_is_number, limits.values()))


def _is_tried(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_number(value.get("alpha")):
        return False
    losses = value.get("losses", {})
    known = _is_number(value.get("drift"), True) and _is_number(value.get("stderr"), True)
    return known and isinstance(losses, dict) and all(map(_is_loss, losses.values()))


def _is_loss(value: Any) -> bool:
    ends = value.get("interval") if isinstance(value, dict) else 0
    whole = ends is None or (isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends)))
    return whole and _is_number(value.get("value"))


def _is_number(value: Any, absent: bool = False) -> bool:
    if value is None:
        return absent
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
