"""Every rank holds a part of each weight: torch's FSDP2, which gathers one layer at a time."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from continual.config.schema import Train
from continual.errors import ContinualError
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty
from continual.training.spread import policy_of, spread
from continual.training.states import load_states, save_states, written
from continual.training.strategies.base import Check, Strategy, adamw, clipped, copied, writers


class Fsdp(Strategy):
    """`fully_shard` over the existing process group, and AdamW on float32 parts.

    Rank 0 brings the weights; the model of the others may be on the meta device. Under bfloat16 the gathered weights
    and the activations have that dtype, and gradients are summed in float32.
    """

    def __init__(self, train: Train, module: LossModule, device: torch.device):
        if not dist.is_initialized():
            raise ContinualError("strategy `fsdp` needs a process group, which Ray Train starts")
        self.max_grad_norm = train.max_grad_norm
        self.writers = writers()
        self.brings = dist.get_rank() == 0
        module.autocast_dtype = None
        spread(module.model, device, policy_of(train.precision), root=module)
        self.module = module
        self.optimizer = adamw(train, module, device)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        total: Tensor = self.module(*args, **kwargs)
        return total

    def micro(self, last: bool) -> AbstractContextManager[Any]:
        # Gradients are summed over ranks after every micro-batch: to keep them would take the memory of a whole model.
        return nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def part(self, name: str, whole: Tensor | None, shape: Sequence[int], device: torch.device) -> Tensor:
        parameter = self.module.model.get_parameter(name)
        assert isinstance(parameter, DTensor)
        tensor = torch.empty(*shape, device=device) if whole is None else whole.to(device, torch.float32)
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements).to_local()

    def add_penalties(self, penalties: Sequence[LoadedPenalty]) -> dict[str, float]:
        parts = []
        for name, parameter in self.module.model.named_parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parts.append((name, _own(parameter), _own(parameter.grad)))
        values = torch.stack([penalty.add_gradients(parts) for penalty in penalties]).to(parts[0][1].device)
        dist.all_reduce(values)
        return {penalty.name: value for penalty, value in zip(penalties, values.tolist(), strict=True)}

    def step(self, learning_rate: float, check: Check = lambda norm: None) -> float:
        return clipped(self.optimizer, self.module, self.max_grad_norm, learning_rate, check)

    def save(self, folder: Path) -> Callable[[], object]:
        return partial(written, save_states(folder, self.module.model, self.optimizer, self.writers))

    def load(self, folder: Path) -> None:
        load_states(folder, self.module.model, self.optimizer, self.writers)

    def full_state(self) -> dict[str, Tensor] | None:
        """Gather tensor by tensor: no rank but the first ever holds more of the model than its part and one tensor."""
        whole = ((name, _whole(tensor)) for name, tensor in self._once())
        if dist.get_rank() != 0:
            for _ in whole:
                pass
            return None
        known = {name: copied([(name, tensor)])[name] for name, tensor in whole}
        first = {id(tensor): name for name, tensor in self._once()}
        return {name: known[first[id(tensor)]] for name, tensor in self._state().items()}

    def close(self) -> None:
        dist.destroy_process_group(self.writers)

    def _state(self) -> dict[str, Any]:
        return self.module.model.state_dict(keep_vars=True)

    def _once(self) -> list[tuple[str, Any]]:
        """Return the state without further names of a tensor (tied weights)."""
        names: dict[int, tuple[str, Any]] = {}
        for name, tensor in self._state().items():
            names.setdefault(id(tensor), (name, tensor))
        return list(names.values())


def _own(tensor: Any) -> Tensor:
    own: Tensor = tensor.detach().to_local()
    return own


def _whole(tensor: Any) -> Tensor:
    whole: Tensor = tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor  # type: ignore[attr-defined]
    return whole
