"""Steps whose losses and gradient norms are still on the device: they are read together, and checked."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from continual.errors import ContinualError


@dataclass
class Unread:
    """The records of optimizer steps without `loss` and `gradient_norm`, with the values that the device has of them.

    `learning_rate`: what a user may lower where a loss is not finite.
    """

    learning_rate: float
    steps: list[tuple[dict[str, Any], list[str], Tensor]] = field(default_factory=list)

    def add(self, record: dict[str, Any], losses: list[str], values: Tensor) -> None:
        """Keep a step: its record, the names of its losses, and their values with the norm at the end, float64."""
        self.steps.append((record, losses, values))

    def read(self) -> Iterator[dict[str, Any]]:
        """Wait for the device once; return the whole records of the steps since the last call.

        The iterator raises ContinualError at the first step with a value that is not finite.
        """
        steps, self.steps = self.steps, []
        values = torch.stack([values for *_, values in steps]).tolist() if steps else []
        return (self._whole(record, losses, row) for (record, losses, _), row in zip(steps, values, strict=True))

    def _whole(self, record: dict[str, Any], names: list[str], values: list[float]) -> dict[str, Any]:
        *losses, norm = values
        found = dict(zip(names, losses, strict=True))
        if not all(map(math.isfinite, values)):
            raise ContinualError(
                f"the loss is not finite at step {record['step']} ({found}); "
                f"lower `train.learning_rate` ({self.learning_rate})"
            )
        record["loss"], record["gradient_norm"] = found, norm
        return record
