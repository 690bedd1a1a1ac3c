"""Every rank holds the whole model, and torch averages the gradients. With one rank there is no wrapper."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from continual.config.schema import Train
from continual.training.checkpoints import read_states
from continual.training.losses.kinds import Nll
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty
from continual.training.strategies.base import Strategy, adamw, copied

FILE = "ddp.pt"


class Ddp(Strategy):
    """torch DistributedDataParallel over the existing process group, and AdamW."""

    def __init__(self, train: Train, module: LossModule, device: torch.device, world_size: int):
        self.module = module.to(device)
        self.max_grad_norm = train.max_grad_norm
        self.optimizer = adamw(train, module)
        self.rank = dist.get_rank() if world_size > 1 else 0
        self.wrapped: nn.Module = module
        if world_size > 1:
            # Buffers are constants of the architecture (rotary frequencies). To send them in every forward pass costs
            # time, and hangs if ranks call the module unequally often.
            self.wrapped = DistributedDataParallel(
                module,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=self._some_unused(device),
            )
            self._settle(device)

    def _some_unused(self, device: torch.device) -> bool:
        """Return whether a row may leave a trained parameter without a gradient (experts, indexers).

        DDP would wait for it, unless it looks for such parameters in every pass.
        """
        # Dropout must draw the numbers that it draws without this pass.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            _dummy_pass(self.module, device)
        unused = any(parameter.requires_grad and parameter.grad is None for parameter in self.module.parameters())
        self.optimizer.zero_grad()
        return unused

    def _settle(self, device: torch.device) -> None:
        """Run a dummy backward pass so that DDP fixes its bucket order.

        DDP sorts its buckets anew after its first backward pass, and with three ranks or more the order in which an
        element is summed depends on its place in a bucket. Without this a resumed run's first step would differ from
        the same step of an undisturbed run in the last bit (measured with 4 ranks: 3e-8 after 10 steps).
        """
        _dummy_pass(self.wrapped, device)
        self.optimizer.zero_grad()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.wrapped(*args, **kwargs)

    def micro(self, last: bool) -> AbstractContextManager[Any]:
        # DDP decides in the forward pass whether the backward pass will reduce, so this must cover both.
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def add_penalties(self, penalties: Sequence[LoadedPenalty]) -> dict[str, float]:
        trained = [(name, p) for name, p in self.module.model.named_parameters() if p.requires_grad]
        return {penalty.name: float(penalty.add_gradients(trained)) for penalty in penalties}

    def step(self, learning_rate: float) -> float:
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def save(self, folder: Path) -> None:
        if self.rank == 0:
            state = {"model": self.module.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state, folder / FILE)

    def load(self, folder: Path) -> None:
        state = read_states(folder / FILE)
        self.module.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def close(self) -> None:
        self.wrapped = self.module

    def full_state(self) -> dict[str, Tensor] | None:
        return copied(self.module.model.state_dict(keep_vars=True).items()) if self.rank == 0 else None


def _dummy_pass(module: nn.Module, device: torch.device) -> None:
    """Add the gradients of a row without a loss: zeros, for every parameter that the row reaches."""
    zeros = torch.zeros(1, 2, device=device, dtype=torch.long)
    module(zeros, torch.arange(2, device=device)[None], zeros.float(), Nll()).backward()
