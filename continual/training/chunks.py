"""Sums over chunks of positions, of which only one chunk's logits exist at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Part = tuple[Tensor, ...]
Compute = Callable[..., Tensor]
"""The sum over some positions, a scalar, of their parts of all tensors; the first are their hidden states [n, H]."""


def sum_again(compute: Compute, parts: Sequence[Part]) -> Tensor:
    """Return the sum over all parts; the backward pass computes each part's logits again."""
    # A head has no dropout.
    again: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.stack([checkpoint(compute, *part, **again) for part in parts]).sum()


def sum_at_once(compute: Compute, parts: Sequence[Part], hidden: Tensor) -> Tensor:
    """Return the sum over all parts, whose gradients are computed with it: logits are made once.

    What is kept for the backward pass are the gradients of `hidden` [N, H], all positions' hidden states, and of the
    weights that `compute` depends on.
    """
    return _AtOnce.apply(compute, parts, hidden, *_weights(compute, parts[0]))


class _AtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Compute, parts: Sequence[Part], hidden: Tensor, *weights: Tensor) -> Tensor:
        slopes = torch.empty_like(hidden)
        sums: list[Tensor] = []
        gradients: list[Tensor] = []
        # Backwards, as a backward pass would go through them.
        for place, part in reversed(list(zip(slopes.tensor_split(len(parts)), parts, strict=True))):
            with torch.enable_grad():
                states, value = _computed(compute, part)
                slope, *found = torch.autograd.grad(value, [states, *weights])
            place.copy_(slope)
            gradients = [one.add_(more) for one, more in zip(gradients, found, strict=True)] if gradients else found
            sums.append(value.detach())
            del found, slope, states, value  # before the next chunk has its logits
        ctx.save_for_backward(slopes, *gradients)
        return torch.stack(sums[::-1]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        # In place, since nothing needs them again: a second backward pass fails, with torch's own words.
        return (None, None, *(gradient.mul_(outer[0]) for gradient in ctx.saved_tensors))


def _computed(compute: Compute, part: Part) -> tuple[Tensor, Tensor]:
    """Return the hidden states as the beginning of a graph, and the sum at its end."""
    states = part[0].detach().requires_grad_()
    return states, compute(states, *part[1:])


def _weights(compute: Compute, part: Part) -> list[Tensor]:
    """Return all trained tensors that the sum depends on, wherever they are kept: one position tells."""
    states, value = _computed(compute, tuple(tensor[:1] for tensor in part))
    found, seen, left = [], set(), [value.grad_fn]
    while left:
        node: Any = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [other for other, _ in node.next_functions]
        if getattr(node, "variable", states) is not states:
            found.append(node.variable)
    return found
