"""The interface of strategies, which alone know how a step is distributed over ranks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from continual.config.schema import Train
from continual.errors import ContinualError
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty


class Strategy(ABC):
    """A wrapped LossModule with its optimizer. Every method is called by all ranks, in the same order.

    The loss that is backpropagated is world_size x (this rank's weighted sum / global count): gradients are averaged
    over ranks and summed over micro-batches, so they are those of the global mean.

        with strategy.micro(last):
            total = strategy(ids, positions, weights, loss)
            strategy.backward(total * world_size / count, last)
        norm = strategy.step(rate)
    """

    module: LossModule

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call `LossModule.forward` through the wrapper."""

    @abstractmethod
    def micro(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of one micro-batch's forward and backward; `last`: the optimizer step follows it."""

    @abstractmethod
    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of `loss`, a scalar, unscaled; after the last micro-batch all ranks have their mean."""

    def add_penalties(self, penalties: Sequence[LoadedPenalty]) -> dict[str, float]:
        """Add the penalties' gradients, between the last micro-batch and `step`; return their values in nats by name.

        Raises ContinualError unless the strategy keeps whole parameters and gradients on every rank.
        """
        raise ContinualError(f"{type(self).__name__} spreads gradients over ranks and cannot add penalties; use ddp")

    @abstractmethod
    def step(self, learning_rate: float) -> float:
        """Clip, update the weights, clear the gradients; return the global gradient norm before clipping."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into an existing folder that all ranks share, each its own files."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Restore, bit for bit, what `save` wrote with the same number of ranks; for a fresh strategy."""

    @abstractmethod
    def full_state(self) -> dict[str, Tensor] | None:
        """Return on rank 0 the model's full state dict, float32, on the CPU, aliasing no live tensor; else None."""

    @abstractmethod
    def close(self) -> None:
        """Give back what would outlive this object: the process may train another stage."""

    def train(self) -> None:
        """Turn dropout on, if the model has any."""
        self.module.train()

    def eval(self) -> None:
        """Turn dropout off."""
        self.module.eval()


def adamw(train: Train, module: LossModule) -> torch.optim.AdamW:
    """Return the AdamW of all strategies, with all trainable parameters in one group."""
    return torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.epsilon,
        weight_decay=train.weight_decay,
        # The same implementation on every device, so that strategies give equal numbers.
        foreach=False,
        fused=False,
    )


def copied(items: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return CPU copies by name, floats in float32; names that shared a tensor share its copy (tied weights)."""
    copies: dict[int, Tensor] = {}
    named = {}
    for name, tensor in items:
        if id(tensor) not in copies:
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            copies[id(tensor)] = tensor.detach().to("cpu", dtype, copy=True)
        named[name] = copies[id(tensor)]
    return named
