"""What a per-token loss is. Implementations import torch inside their methods, so that a name costs no import."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator

from continual.contract.registry import LOSSES

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LossInputs:
    """What a loss sees of N positions.

    Attributes:
        logits: [N, V], of any floating dtype.
        weights: [N].
        targets: [N] int64, the tokens that are predicted.
        teacher_logits: [N, V] for a loss with a teacher, else None.
        columns: The stored columns that the loss names, each [N, k].
    """

    logits: "Tensor"
    weights: "Tensor"
    targets: "Tensor"
    teacher_logits: "Tensor | None"
    columns: Mapping[str, "Tensor"]


class Loss(ABC):
    """A per-token loss, summed with weights over positions. Objects hold no state and travel to the workers."""

    name: ClassVar[str]
    teacher: ClassVar[bool] = False
    """Whether it needs the logits of a frozen model at the same positions."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Stored columns of the rows that it needs, k values per token."""
    cached: ClassVar["type[Loss] | None"] = None
    """The loss that takes its place where a teacher's likeliest tokens are stored instead of its model."""

    @abstractmethod
    def sum(self, inputs: LossInputs) -> "Tensor":
        """Return sum_i weights_i x loss_i in nats, a float32 scalar that only the logits receive a gradient from."""

    @property
    def measures_drift(self) -> bool:
        """Whether its value on held-out rows is a divergence from a frozen model."""
        return self.teacher or bool(self.columns)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


LossName = Annotated[str, AfterValidator(LOSSES.check)]
"""The type of an option that names a loss."""
