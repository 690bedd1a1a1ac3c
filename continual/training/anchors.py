"""Elementwise pulls towards earlier weights, added to the gradients of an optimizer step."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual.contract.mitigation import Anchor
from continual.errors import ContinualError
from continual.models import load_model


@dataclass
class Pull:
    """weight x sum(curvature x (theta - centre)^2) over the trained parameters; tensors by parameter name, float32.

    `curvature` None means 1 everywhere.
    """

    name: str
    weight: float
    centre: dict[str, Tensor]
    curvature: dict[str, Tensor] | None

    @torch.no_grad()
    def add(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> Tensor:
        """Add 2 x weight x curvature x (theta - centre) to the gradients; returns the pull's value, a scalar in nats.

        Gradients must already be the mean over all ranks: every rank adds the same.
        """
        total = torch.zeros((), dtype=torch.float64)
        for name, parameter in parameters:
            away = parameter.float() - self.centre[name]
            slope = away if self.curvature is None else away * self.curvature[name]
            total += (slope * away).sum(dtype=torch.float64).cpu()
            slope = (2.0 * self.weight * slope).to(parameter.dtype)
            if parameter.grad is None:
                parameter.grad = slope
            else:
                parameter.grad.add_(slope)
        return self.weight * total


def load_pulls(anchors: Iterable[Anchor], model: nn.Module, device: torch.device) -> list[Pull]:
    """The anchors' tensors for the trained parameters of `model` (already adapted), on `device`.

    Raises ContinualError where an anchor has no tensor of that name and shape for one of them.
    """
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    pulls = []
    for anchor in anchors:
        centre = load_model(anchor.centre.path, "float32")
        own = _chosen(dict(centre.named_parameters()), wanted, f"anchor {anchor.name}: its centre", device)
        curvature = None
        if anchor.curvature is not None:
            found = _tensors(anchor.curvature.path)
            curvature = _chosen(found, wanted, f"anchor {anchor.name}: its curvature", device)
        pulls.append(Pull(anchor.name, anchor.weight, own, curvature))
    return pulls


def _tensors(folder: Any) -> dict[str, Tensor]:
    """All tensors of an artefact's `*.safetensors` files."""
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def _chosen(
    found: dict[str, Any], wanted: dict[str, tuple[int, ...]], what: str, device: torch.device
) -> dict[str, Tensor]:
    for name, shape in wanted.items():
        if name not in found or tuple(found[name].shape) != shape:
            raise ContinualError(f"{what} has no tensor `{name}` of shape {list(shape)}, which is trained")
    return {name: found[name].detach().to(device, torch.float32) for name in wanted}
