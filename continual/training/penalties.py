"""Penalties on the distance to earlier weights, added to the gradients of an optimizer step."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from continual.contract.mitigation import Penalty
from continual.errors import ContinualError
from continual.models import load_model


@dataclass
class LoadedPenalty:
    """coefficient x sum(curvature x (theta - centre)^2) over the trained parameters.

    Tensors are float32, by parameter name. `curvature` None means 1 everywhere.
    """

    name: str
    coefficient: float
    centre: dict[str, Tensor]
    curvature: dict[str, Tensor] | None

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> Tensor:
        """Add 2 x coefficient x curvature x (theta - centre) to the gradients; return the penalty, a scalar in nats.

        Gradients must already be the mean over all ranks: every rank adds the same.
        """
        total = torch.zeros((), dtype=torch.float64)
        for name, parameter in parameters:
            distance = parameter.float() - self.centre[name]
            slope = distance if self.curvature is None else distance * self.curvature[name]
            total += (slope * distance).sum(dtype=torch.float64).cpu()
            slope = (2.0 * self.coefficient * slope).to(parameter.dtype)
            if parameter.grad is None:
                parameter.grad = slope
            else:
                parameter.grad.add_(slope)
        return self.coefficient * total


def load_penalties(penalties: Iterable[Penalty], model: nn.Module, device: torch.device) -> list[LoadedPenalty]:
    """Return the penalties' tensors for the trained parameters of `model` (already adapted), on `device`.

    Raises ContinualError if a penalty has no tensor of the name and shape of one of them.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    loaded = []
    for penalty in penalties:
        title = f"penalty `{penalty.name}`"
        parameters = dict(load_model(penalty.centre.path, "float32").named_parameters())
        centre = _chosen(parameters, shapes, f"{title}: its centre", device)
        curvature = None
        if penalty.curvature is not None:
            curvature = _chosen(_tensors(penalty.curvature.folder()), shapes, f"{title}: its curvature", device)
        loaded.append(LoadedPenalty(penalty.name, penalty.coefficient, centre, curvature))
    return loaded


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of an artefact's `*.safetensors` files."""
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def _chosen(
    tensors: dict[str, Any], shapes: dict[str, tuple[int, ...]], title: str, device: torch.device
) -> dict[str, Tensor]:
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise ContinualError(f"{title} has no tensor `{name}` of shape {list(shape)}, which is trained")
    return {name: tensors[name].detach().to(device, torch.float32) for name in shapes}
