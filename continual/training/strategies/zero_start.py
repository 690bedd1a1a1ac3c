"""Spread a model by ZeRO-3 from rank 0, which has loaded it: one parameter at a time is whole elsewhere."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def partition(model: nn.Module, device: torch.device, settings: dict[str, Any]) -> None:
    """Let every rank keep its part of rank 0's parameters, and all of its buffers; called by all ranks.

    Args:
        model: The same model on all ranks. Those but the first need no weights: theirs may be on the meta device.
        device: Where buffers go, and parameters that are gathered.
        settings: DeepSpeed's configuration.
    """
    import deepspeed

    made: dict[int, Any] = {}
    first: Any = None
    for module in model.modules():
        own = [_with_room(module, name, device, made) for name, _ in module.named_parameters(recurse=False)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = _sent(buffer, device)
        if own and first is None:
            deepspeed.zero.Init(nn.ParameterList(own), config_dict_or_path=settings)
            first = own[0]
        elif own:
            # As DeepSpeed does with what is not partitioned yet: `Init` would make its process groups again.
            first.convert_to_zero_parameters(param_list=own)


def _with_room(module: nn.Module, name: str, device: torch.device, made: dict[int, Any]) -> Any:
    """Return a parameter, in place of one on the meta device one with memory; shared ones stay shared by `made`."""
    parameter = module._parameters[name]
    assert parameter is not None
    if parameter.is_meta:
        if id(parameter) not in made:
            room = nn.Parameter(torch.empty_like(parameter, device=device), parameter.requires_grad)
            made[id(parameter)] = (parameter, room)  # the old one is kept, so that its id stays its own
        module._parameters[name] = made[id(parameter)][1]
    return module._parameters[name]


def _sent(buffer: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return rank 0's buffer."""
    own = torch.empty_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
    dist.broadcast(own, 0)
    return own
