"""Penalties on the distance to earlier weights, added to the gradients of an optimizer step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from continual.contract.mitigation import Penalty
from continual.errors import ContinualError
from continual.models import load_model

Part = Callable[[str, Tensor | None, Sequence[int]], Tensor]


@dataclass
class LoadedPenalty:
    """coefficient x sum(curvature x (theta - centre)^2) over the trained parameters.

    Tensors are float32, by parameter name; of each the part that this rank holds. `curvature` None means 1 everywhere.
    """

    name: str
    coefficient: float
    centre: dict[str, Tensor]
    curvature: dict[str, Tensor] | None

    @torch.no_grad()
    def add_gradients(self, parts: Iterable[tuple[str, Tensor, Tensor]], device: torch.device) -> Tensor:
        """Add 2 x coefficient x curvature x (theta - centre) to gradients; return the penalty of the parts, in nats.

        Args:
            parts: Name, weights and gradient of each trained parameter, as far as this rank holds them. The gradients
                are the mean over all ranks.
            device: Where they are; the penalty, float64, is there, too.
        """
        total = torch.zeros((), dtype=torch.float64, device=device)
        for name, weights, gradient in parts:
            distance = weights.float() - self.centre[name]
            slope = distance if self.curvature is None else distance * self.curvature[name]
            total += (slope * distance).sum(dtype=torch.float64)
            gradient.add_((2.0 * self.coefficient * slope).to(gradient.dtype))
        return self.coefficient * total


def load_penalties(
    penalties: Iterable[Penalty], shapes: Mapping[str, tuple[int, ...]], brings: bool, part: Part
) -> list[LoadedPenalty]:
    """Return the penalties' tensors for the trained parameters, as far as this rank holds those; called by all ranks.

    Args:
        penalties: What the stage asks for.
        shapes: The shapes of the trained parameters, by name.
        brings: Whether this rank is to read the tensors; others get their parts of what it reads.
        part: Returns this rank's part of a tensor like a parameter, given its name, the tensor if read, its shape.

    Raises:
        ContinualError: A penalty lacks a tensor with the name and shape of a trained parameter.
    """

    def parts(title: str, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        tensors = _chosen(read(), shapes, title) if brings else {}
        return {name: part(name, tensors.get(name), shape) for name, shape in shapes.items()}

    loaded = []
    for penalty in penalties:
        title = f"penalty `{penalty.name}`"
        centre = parts(f"{title}: its centre", partial(_weights, penalty.centre.path))
        curvature = None
        if penalty.curvature is not None:
            curvature = parts(f"{title}: its curvature", partial(_tensors, penalty.curvature.folder()))
        loaded.append(LoadedPenalty(penalty.name, penalty.coefficient, centre, curvature))
    return loaded


def _weights(folder: str) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in load_model(folder, "float32").named_parameters()}


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of an artefact's `*.safetensors` files."""
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def _chosen(tensors: dict[str, Tensor], shapes: Mapping[str, tuple[int, ...]], title: str) -> dict[str, Tensor]:
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise ContinualError(f"{title} has no tensor `{name}` of shape {list(shape)}, which is trained")
    return {name: tensors[name] for name in shapes}
