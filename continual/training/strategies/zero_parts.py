"""What a rank holds under ZeRO of weights and gradients, between the last backward pass and the update.

DeepSpeed spreads the flat values of many parameters: a rank holds a piece of a parameter, all of it, or nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """A rank's piece of a parameter: where it begins among the flat values, and how many it has."""

    name: str
    parameter: Any
    begin: int
    count: int
    gradient: Tensor | None = None
    """All that DeepSpeed keeps of the gradient here: under ZeRO-3 the last rank's piece is padded."""

    def of(self, whole: Tensor) -> Tensor:
        """Return this piece of a tensor like the parameter."""
        return whole.flatten()[self.begin : self.begin + self.count]


class ZeroParts:
    """The pieces of the trained parameters of `model` that this rank holds under an engine's ZeRO 1, 2 or 3."""

    def __init__(self, engine: Any, model: nn.Module):
        self.zero, self.device = engine.optimizer, engine.device
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parts = {name: part for name, p in parameters.items() if (part := _part(name, p)) is not None}

    def of(self, name: str, whole: Tensor) -> Tensor:
        """Return a copy of this rank's piece of a tensor like the parameter `name`; nothing if it has none."""
        return self.parts[name].of(whole).clone() if name in self.parts else whole.new_empty(0)

    def read(self) -> tuple[list[Part], list[tuple[str, Tensor, Tensor]]]:
        """Return the pieces, and of each its name, float32 weights and gradient [count], on the engine's device."""
        held, tensors = [], []
        for part in self.parts.values():
            weights, gradient = self._weights(part), self._gradient(part)
            held.append(replace(part, gradient=gradient))
            tensors.append((part.name, weights[: part.count], gradient[: part.count]))
        return held, tensors

    def write(self, held: Iterable[Part]) -> None:
        """Give DeepSpeed the gradients that `read` returned, which have been changed in place."""
        from deepspeed.utils import safe_set_local_grad

        for part in held:
            assert part.gradient is not None
            if hasattr(part.parameter, "ds_id"):
                safe_set_local_grad(part.parameter, part.gradient)
                continue
            kept = _kept_gradient(part.parameter)
            if kept.data_ptr() != part.gradient.data_ptr():
                kept.copy_(part.gradient)
            if self.zero.cpu_offload:  # clipping adds these up
                number = self.zero.get_param_id(part.parameter)
                self.zero.norm_for_param_grads[number] = part.gradient.double().norm(2)

    def _weights(self, part: Part) -> Tensor:
        from deepspeed.utils import safe_get_local_fp32_param

        if hasattr(part.parameter, "ds_id"):
            found: Tensor = safe_get_local_fp32_param(part.parameter)
            return found
        weights: Tensor = part.parameter._hp_mapping.get_hp_fragment().to(self.device)
        return weights

    def _gradient(self, part: Part) -> Tensor:
        from deepspeed.utils import safe_get_local_grad

        if hasattr(part.parameter, "ds_id"):
            found: Tensor = safe_get_local_grad(part.parameter)
            return found
        return _kept_gradient(part.parameter).to(self.device)


def _part(name: str, parameter: Any) -> Part | None:
    """Return what this rank holds of a parameter that is trained; None if that is nothing."""
    if hasattr(parameter, "ds_id"):
        size = parameter.ds_tensor.numel()
        begin = size * dist.get_rank(parameter.ds_process_group)
        count = min(size, parameter.ds_numel - begin)
    elif parameter._hp_mapping is None:
        return None
    else:
        address = parameter._hp_mapping.lp_fragment_address
        begin, count = address.start, address.numel
    return Part(name, parameter, begin, count) if count > 0 else None


def _kept_gradient(parameter: Any) -> Tensor:
    """Return the flat piece of a gradient that ZeRO 1 or 2 keeps; under offloading it is on the CPU."""
    gradient: Tensor = parameter._hp_mapping.get_lp_grad_fragment(parameter._index_in_param_group)
    return gradient.view(-1)
