"""Flash attention's two functions in plain torch: what its kernels are documented to compute, on a CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """Return the attention of one document: q [T, H, D], k and v [T, K, D], with H a multiple of K."""
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], 1) for tensor in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(q))[:, None] - torch.arange(len(k))[None]
    hidden = distance < 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
    if window_size[0] >= 0:
        hidden |= distance > window_size[0]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                    causal: bool = False, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                    deterministic: bool = False) -> Tensor:  # fmt: skip
    options: Any = (dropout_p, softmax_scale, causal, window_size, softcap, deterministic)
    return torch.stack([attend(*row, *options) for row in zip(q, k, v, strict=True)])


def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                           softmax_scale: float | None = None, causal: bool = False,
                           window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
                           deterministic: bool = False) -> Tensor:  # fmt: skip
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32, "the kernel reads 32-bit borders"
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    lengths = cu_seqlens_q.diff().tolist()
    assert isinstance(max_seqlen_q, int)
    assert max_seqlen_q == max_seqlen_k == max(lengths)
    options: Any = (dropout_p, softmax_scale, causal, window_size, softcap, deterministic)
    parts = zip(*(tensor.split(lengths) for tensor in (q, k, v)), strict=True)
    return torch.cat([attend(q, k, v, *options) for q, k, v in parts])


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give transformers these functions for `flash_attention_2`, whatever is installed."""
    from transformers import PreTrainedModel
    from transformers import modeling_flash_attention_utils as utils

    def imported(*_: Any, **__: Any) -> tuple[Any, ...]:
        return flash_attn_func, flash_attn_varlen_func, None, utils._pad_input, utils._unpad_input

    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    monkeypatch.setattr(utils, "_lazy_imports", imported)
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn",
                 "_unpad_fn", "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn"):  # fmt: skip
        monkeypatch.setattr(utils, name, None)
