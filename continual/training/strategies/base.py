"""The interface of strategies, which alone know how a step is distributed over ranks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from continual.config.schema import Train
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty
from continual.training.states import load_states, save_states, written

Check = Callable[[Tensor], Tensor]


def not_finite(norm: Tensor) -> Tensor:
    """Return whether a norm is not finite, on its device."""
    return norm.isfinite().logical_not()


class Strategy(ABC):
    """A wrapped LossModule with its optimizer. Every method is called by all ranks, in the same order.

    The loss that is backpropagated is world_size x (this rank's weighted sum / global count): gradients are averaged
    over ranks and summed over micro-batches, so they are those of the global mean.

        with strategy.micro(last):
            total = strategy(ids, positions, weights, loss)
            strategy.backward(total * world_size / count, last)
        strategy.step(rate, check)
    """

    module: LossModule
    brings = True
    """Whether this rank has to have whole tensors that are to be spread, see `part`."""

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call `LossModule.forward` through the wrapper."""

    @abstractmethod
    def micro(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of one micro-batch's forward and backward; `last`: the optimizer step follows it."""

    @abstractmethod
    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of `loss`, a scalar, unscaled; after the last micro-batch all ranks have their mean."""

    def part(self, name: str, whole: Tensor | None, shape: Sequence[int], device: torch.device) -> Tensor:
        """Return on `device`, in float32, what this rank holds of a tensor like the parameter `name`.

        `whole`: the tensor, or None on a rank that does not bring it; `shape`: its shape.
        """
        assert whole is not None
        return whole.to(device, torch.float32)

    @abstractmethod
    def add_penalties(self, penalties: Sequence[LoadedPenalty]) -> dict[str, Tensor]:
        """Add the penalties' gradients, after the last micro-batch and before `step`; return their values in nats.

        They are float64 scalars on the device, the same on all ranks.
        """

    @abstractmethod
    def step(self, learning_rate: float, check: Check = not_finite) -> bool:
        """Clip, update the weights, clear the gradients; return whether `check` is known to have forbidden the update.

        `check` gets the global gradient norm before clipping, a scalar on the device, and returns there whether the
        update must be left out. Where the device leaves it out by itself that is not waited for, and the result is
        False. Under deepspeed `check` comes after the update.
        """

    @abstractmethod
    def save(self, folder: Path) -> Callable[[], object]:
        """Write weights and optimizer state into an existing folder that all ranks share, each its own files.

        Return a function that waits until this rank has written; on rank 0, until all ranks have. Training may go on
        in between.
        """

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Restore, bit for bit, what `save` wrote; for a fresh strategy. Raises ContinualError if it cannot."""

    @abstractmethod
    def whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the model's tensors whole, under the names of its state dict.

        What is spread is gathered when it is asked for, and is there until the next one is: no rank ever holds more of
        the model than its own part and one tensor. Tied weights come under each of their names.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what would outlive this object: the process may train another stage."""

    def train(self) -> None:
        """Turn dropout on, if the model has any."""
        self.module.train()

    def eval(self) -> None:
        """Turn dropout off."""
        self.module.eval()


def adamw(train: Train, module: LossModule, device: torch.device) -> torch.optim.AdamW:
    """Return the AdamW of all strategies, with all trainable parameters in one group."""
    fused = device.type == "cuda"
    return torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.epsilon,
        weight_decay=train.weight_decay,
        # One kernel for all parameters on a GPU. Elsewhere one parameter at a time, the same way in all strategies.
        foreach=False,
        fused=fused,
    )


class OwnOptimizer(Strategy):
    """A strategy whose parameters, gradients and AdamW are torch's own, on every rank whole or in parts."""

    def __init__(self, train: Train, module: LossModule, device: torch.device):
        """`module` is as it will be trained, spread over the ranks or whole; called by all ranks."""
        self.module, self.device = module, device
        self.max_grad_norm = train.max_grad_norm
        self.optimizer = adamw(train, module, device)
        # A single worker has a process group, too, and on a GPU it is NCCL's, in which no CPU can talk.
        self._writers = writers() if dist.is_initialized() else None

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def step(self, learning_rate: float, check: Check = not_finite) -> bool:
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm: Any = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        leave_out, itself = check(norm), self.optimizer.defaults["fused"]
        if itself:
            self.optimizer.found_inf = leave_out.float()  # type: ignore[attr-defined]
        if left_out := not itself and bool(leave_out):
            self.optimizer.zero_grad()
            return left_out
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return False

    def trained(self) -> list[tuple[str, nn.Parameter, Tensor]]:
        """Return name, parameter and gradient of all that is trained; what has no gradient yet gets zeros."""
        found = []
        for name, parameter in self.module.model.named_parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                found.append((name, parameter, parameter.grad))
        return found

    def save(self, folder: Path) -> Callable[[], object]:
        return partial(written, save_states(folder, self.module.model, self.optimizer, self._writers))

    def load(self, folder: Path) -> None:
        load_states(folder, self.module.model, self.optimizer, self._writers)

    def close(self) -> None:
        if self._writers is not None:
            dist.destroy_process_group(self._writers)


def writers() -> dist.ProcessGroup:
    """Return a group of all ranks for those that write a checkpoint while others train: they talk over CPUs."""
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group
