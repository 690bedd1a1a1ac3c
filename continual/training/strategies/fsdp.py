"""Every rank holds a part of each weight: torch's FSDP2, which gathers one layer at a time."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from continual.config.schema import Train
from continual.errors import ContinualError
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty
from continual.training.spread import policy_of, spread
from continual.training.strategies.base import OwnOptimizer


class Fsdp(OwnOptimizer):
    """`fully_shard` over the existing process group, and AdamW on float32 parts.

    Rank 0 brings the weights; the model of the others may be on the meta device. Under bfloat16 the gathered weights
    and the activations have that dtype, and gradients are summed in float32.
    """

    def __init__(self, train: Train, module: LossModule, device: torch.device):
        if not dist.is_initialized():
            raise ContinualError("strategy `fsdp` needs a process group, which Ray Train starts")
        self.brings = dist.get_rank() == 0
        module.autocast_dtype, module.head_is_spread = None, True
        spread(module.model, device, policy_of(train.precision), root=module)
        super().__init__(train, module, device)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        total: Tensor = self.module(*args, **kwargs)
        return total

    def micro(self, last: bool) -> AbstractContextManager[Any]:
        # Gradients are summed over ranks after every micro-batch: to keep them would take the memory of a whole model.
        return nullcontext()

    def train(self) -> None:
        """Turn dropout on, and give back what forward passes without a backward one have gathered."""
        super().train()
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def part(self, name: str, whole: Tensor | None, shape: Sequence[int], device: torch.device) -> Tensor:
        parameter = self.module.model.get_parameter(name)
        assert isinstance(parameter, DTensor)
        tensor = torch.empty(*shape, device=device) if whole is None else whole.to(device, torch.float32)
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements).to_local()

    def add_penalties(self, penalties: Sequence[LoadedPenalty]) -> dict[str, Tensor]:
        parts = [(name, _own(parameter), _own(gradient)) for name, parameter, gradient in self.trained()]
        values = torch.stack([penalty.add_gradients(parts, self.device) for penalty in penalties])
        dist.all_reduce(values)
        return {penalty.name: value for penalty, value in zip(penalties, values, strict=True)}

    def whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.module.model.state_dict().items():
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _own(tensor: Any) -> Tensor:
    own: Tensor = tensor.detach().to_local()
    return own
