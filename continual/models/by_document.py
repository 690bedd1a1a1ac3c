"""Attention for CPUs that computes packed documents one by one, without a mask of tokens x tokens.

The documents of a batch are gathered into batches of like lengths. Where a row holds many short documents, most of the
scores that a mask would throw away are never computed. GPUs have kernels for this, see `continual.models.attention`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LEAST_FILLED = 0.8
"""Documents of one batch are at least this long, as a share of its longest: more batches cost more calls."""


@dataclass(frozen=True)
class Batch:
    """Documents of like lengths: where each of `count` x `length` tokens is among all, shorter ones filled up."""

    tokens: Tensor
    count: int
    length: int


@dataclass(frozen=True)
class Documents:
    """The batches of all documents, and where each token is in them: int64 [B x T]."""

    batches: tuple[Batch, ...]
    place: Tensor


def documents_of(positions: Tensor) -> Documents:
    """Return the documents of packed rows whose position ids [B, T] restart with each; padding counts as documents."""
    flat = positions.flatten()
    begins = (flat == 0).nonzero().flatten()
    lengths = torch.cat([begins, begins.new_tensor([len(flat)])]).diff()
    order = lengths.argsort(descending=True, stable=True)
    place, batches, before = torch.empty_like(flat), [], 0
    for first, end in _alike(lengths[order].tolist()):
        chosen = order[first:end]
        within = torch.arange(int(lengths[order[first]]), device=flat.device)
        filled = within < lengths[chosen, None]
        tokens = begins[chosen, None] + within * filled
        count, length = tokens.shape
        place[tokens[filled]] = before + torch.arange(count * length, device=flat.device).view(count, length)[filled]
        batches.append(Batch(tokens.flatten(), count, length))
        before += count * length
    return Documents(tuple(batches), place)


def _alike(lengths: list[int]) -> list[tuple[int, int]]:
    """Return first and end of the runs of like lengths; the longest come first."""
    firsts = [0]
    for number, length in enumerate(lengths):
        if length < LEAST_FILLED * lengths[firsts[-1]]:
            firsts.append(number)
    return list(zip(firsts, [*firsts[1:], len(lengths)], strict=True))


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    documents: Documents | None = None,
    position_ids: Tensor | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return what transformers' attention functions return: the mean of values [B, T, heads, D], and no scores.

    `query` is [B, heads, T, D]; `key` and `value` may have fewer heads, and `value` another D. Without `documents` they
    are those of `position_ids`, which most classes hand on, and without both a row is one.
    """
    if attention_mask is not None or key.shape[2] != query.shape[2]:  # rows are filled up, or a cache is read
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    rows, heads, width, _ = query.shape
    if documents is None:
        known = position_ids if position_ids is not None and position_ids.ndim == 2 else None
        places = torch.arange(width, device=query.device) if known is None else known
        documents = documents_of(places.expand(rows, width))
    flat = [each.transpose(1, 2).flatten(0, 1) for each in (query, key, value)]
    found = []
    for batch in documents.batches:
        q, k, v = (each[batch.tokens].unflatten(0, (batch.count, batch.length)).transpose(1, 2) for each in flat)
        near = None if sliding_window is None else _near(batch.length, sliding_window, query.device)
        mean = functional.scaled_dot_product_attention(
            q, k, v, near, dropout, is_causal=near is None, scale=scaling, enable_gqa=key.shape[1] != heads
        )
        found.append(mean.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[documents.place].unflatten(0, (rows, width)), None


def _near(length: int, window: int, device: torch.device) -> Tensor | None:
    """Return which tokens [length, length] see which; None where the window hides none of the tokens before."""
    if length <= window:
        return None
    place = torch.arange(length, device=device)
    distance = place[:, None] - place
    return (distance >= 0) & (distance < window)


def no_mask(attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Return the mask that transformers asks for: none for rows of whole documents, else that of `sdpa`."""
    if attention_mask is None and options["q_length"] == options["kv_length"]:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(attention_mask=attention_mask, **options)


def register(name: str) -> None:
    """Let transformers know this attention by a name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, no_mask)
