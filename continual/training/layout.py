"""Where packed rows predict tokens and where their documents begin: worked out on the CPU, where the rows come from.

How many there are is a matter of content, for which a GPU would be waited for in every forward pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from continual.models.forward import document_borders
from continual.training.batch import on_device


@dataclass(frozen=True)
class Layout:
    """The flat positions [N] of rows that predict a token of nonzero weight, and its weight [N], float32.

    `borders`: what `document_borders` says of the rows, None where attention does not ask for it.
    """

    predicting: Tensor
    weights: Tensor
    borders: Mapping[str, Any] | None = None

    def to(self, device: torch.device) -> "Layout":
        """Return the same on a device. With a GPU the call does not wait for the copy."""
        borders = self.borders and {
            name: on_device(value, device) if isinstance(value, Tensor) else value
            for name, value in self.borders.items()
        }
        return Layout(on_device(self.predicting, device), on_device(self.weights, device), borders)


def layout_of(positions: Tensor, weights: Tensor, borders: bool) -> Layout:
    """Return the layout of rows [B, T]: their position ids, and at t the weight of predicting token t."""
    shifted = torch.zeros_like(weights, dtype=torch.float32)
    shifted[:, :-1] = weights[:, 1:]
    flat = shifted.reshape(-1)
    predicting = flat.nonzero().squeeze(-1)
    return Layout(predicting, flat[predicting], document_borders(positions) if borders else None)
