"""Weighted sums of per-token losses, in float32 whatever the logits' dtype, with their gradients in closed form.

Autograd through two log-softmaxes leaves about 1e-9 where the gradient is zero, and Adam turns that into steps of full
size; the closed form leaves zero. Each function keeps one float32 tensor of the logits' shape for the backward pass,
the slope; the caller bounds its size by calling with a chunk of positions. Whatever else has a value per logit exists
for a few positions at a time, which on a CPU stay in its cache.

Shapes: logits and teacher logits [N, V]; targets [N] int64; weights [N]; top ids [N, k] int64, top log-probabilities
[N, k]. All values are in nats. Only the student's logits receive a gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from continual.training.resources import PART_LOGITS

CACHED_LOGITS = 2**20
"""Logits of the positions that are computed at a time on a CPU, 4 MiB; elsewhere they are PART_LOGITS."""

Computed = tuple[Tensor, Tensor]
"""Losses [n] of some positions, and their slopes [n, V]: the gradients with respect to the logits, a new tensor."""


class _Sum(torch.autograd.Function):
    """A scalar whose gradient with respect to the logits was computed with it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, total: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.dtype = logits.dtype
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        # In place, since nothing needs it again: a second backward pass through it fails, with torch's own words.
        return slope.mul_(gradients[0]).to(ctx.dtype), None, None


def _weighted(logits: Tensor, weights: Tensor, compute: Callable[[slice], Computed]) -> Tensor:
    """Return the weighted sum of what `compute` returns for some positions after others."""
    positions, vocabulary = logits.shape
    size = max(1, (CACHED_LOGITS if logits.device.type == "cpu" else PART_LOGITS) // vocabulary)
    weights, learns = weights.float(), torch.is_grad_enabled() and logits.requires_grad
    with torch.no_grad():
        values = torch.empty(positions, device=logits.device)
        slopes = torch.empty(logits.shape, device=logits.device) if learns else None
        for first in range(0, positions, size):
            part = slice(first, first + size)
            values[part], slope = compute(part)
            if slopes is not None:
                torch.mul(slope, weights[part, None], out=slopes[part])
            del slope  # before there is another one
        total = (weights * values).sum()
    return total if slopes is None else _Sum.apply(logits, total, slopes)


def nll_sum(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights_i x -log p_i(targets_i), where p = softmax(logits)."""

    def compute(part: slice) -> Computed:
        of = targets[part, None]
        log_p = torch.log_softmax(logits[part], -1, dtype=torch.float32)
        values = -log_p.gather(-1, of).squeeze(-1)
        slope = log_p.exp_()
        return values, slope.scatter_add_(-1, of, slope.new_full(of.shape, -1.0))

    return _weighted(logits, weights, compute)


def kl_sum(logits: Tensor, teacher_logits: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights_i x KL(teacher_i || student_i), the forward KL over the whole vocabulary.

    Value and gradient are exactly zero where both logits are equal bit for bit.
    """

    def compute(part: slice) -> Computed:
        log_q = torch.log_softmax(logits[part], -1, dtype=torch.float32)
        log_p = torch.log_softmax(teacher_logits[part], -1, dtype=torch.float32)
        p = log_p.exp()
        values = log_p.sub_(log_q)
        slope = log_q.exp_().sub_(p)
        # The slope sums to zero over the vocabulary. Added to p (log p - log q) it cancels the rounding error of log q
        # to first order, and makes every summand non-negative: a KL of 1e-6 nats is not lost in float32.
        return values.mul_(p).add_(slope).sum(-1).clamp_min_(0.0), slope

    return _weighted(logits, weights, compute)


def kl_topk_sum(logits: Tensor, top_ids: Tensor, top_logprobs: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights_i x KL over k + 1 classes: the teacher's k listed tokens, and one bucket for all others.

    The bucket's teacher mass is 1 - sum exp(top_logprobs), at least 0; where it is 0 the bucket contributes nothing.
    Merging classes can only lose information, so this is a lower bound of the full KL (log-sum inequality).
    """

    def compute(part: slice) -> Computed:
        # One tensor of n x V values, changed in place: a second one would not stay in the cache.
        z, ids, log_p = logits[part].to(torch.float32, copy=True), top_ids[part], top_logprobs[part].float()
        listed, p = z.gather(-1, ids), log_p.exp()
        mass = p.sum(-1, keepdim=True)
        if ids.shape[-1] == z.shape[-1]:
            log_z = torch.logsumexp(z, -1, keepdim=True)
            slope = z.sub_(log_z).exp_().scatter_add_(-1, ids, -p)
            return (p * (log_p - (listed - log_z))).sum(-1).clamp_min_(0.0), slope
        rest = (1.0 - mass).clamp_min_(0.0)
        others = z.scatter_(-1, ids, float("-inf"))
        highest = others.amax(-1, keepdim=True)
        slope = others.sub_(highest).exp_()
        total = slope.sum(-1, keepdim=True)
        # Not log(1 - student's top mass), which cancels to log 0 where the student is sure of a listed token.
        log_z_rest = highest + total.log()
        log_z = torch.logaddexp(torch.logsumexp(listed, -1, keepdim=True), log_z_rest)
        log_q, log_q_rest = listed - log_z, log_z_rest - log_z
        bucket = torch.where(rest > 0, rest * (rest.log() - log_q_rest), 0.0)
        values = (p * (log_p - log_q)).sum(-1) + bucket.squeeze(-1)
        # The student's belief in each other token, given that it is one of them, is slope / total.
        slope.mul_((log_q_rest.exp() * (mass + rest) - rest) / total)
        slope.scatter_(-1, ids, log_q.exp() * (mass + rest) - p)
        return values.clamp_min_(0.0), slope

    return _weighted(logits, weights, compute)
