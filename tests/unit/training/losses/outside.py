"""Losses as an outside package would write them: they inherit from the contract and differentiate by autograd."""

from typing import ClassVar

import torch
from torch import Tensor

from continual.contract.loss import Loss, LossInputs


class Focal(Loss):
    """-(1 - p)^2 log p of the target token."""

    name: ClassVar[str] = "focal"

    def sum(self, inputs: LossInputs) -> Tensor:
        log_p = torch.log_softmax(inputs.logits.float(), -1).gather(-1, inputs.targets[:, None]).squeeze(-1)
        return -(inputs.weights * (1 - log_p.exp()) ** 2 * log_p).sum()


class Excess(Focal):
    """-log p of the target token above what is stored of it, at least 0: only what was forgotten counts."""

    name: ClassVar[str] = "excess"
    columns: ClassVar[tuple[str, ...]] = ("nll",)

    def sum(self, inputs: LossInputs) -> Tensor:
        nll = -torch.log_softmax(inputs.logits.float(), -1).gather(-1, inputs.targets[:, None]).squeeze(-1)
        return (inputs.weights * (nll - inputs.columns["nll"][:, 0]).clamp(min=0)).sum()
