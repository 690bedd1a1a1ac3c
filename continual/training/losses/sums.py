"""Weighted sums of per-token losses, in float32 whatever the logits' dtype, with their gradients in closed form.

Autograd through two log-softmaxes leaves about 1e-9 where the gradient is zero, and Adam turns that into steps of full
size; the closed form leaves zero. Each function keeps one float32 tensor of the logits' shape for the backward pass,
the slope; the caller bounds its size by calling with a chunk of positions.

Shapes: logits and teacher logits [N, V]; targets [N] int64; weights [N]; top ids [N, k] int64, top log-probabilities
[N, k]. All values are in nats. Only the student's logits receive a gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Sum(torch.autograd.Function):
    """A scalar whose gradient with respect to the logits was computed with it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, slope: Tensor, weights: Tensor) -> Tensor:
        """Sum the losses `values` [N]; scale their gradients `slope` [N, V] in place and keep them."""
        weights = weights.float()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(slope.mul_(weights[:, None]))
            ctx.dtype = logits.dtype
        return (weights * values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * gradients[0]).to(ctx.dtype), None, None, None


def nll_sum(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights_i x -log p_i(targets_i), where p = softmax(logits)."""
    with torch.no_grad():
        log_p = torch.log_softmax(logits, -1, dtype=torch.float32)
        values = -log_p.gather(-1, targets[:, None]).squeeze(-1)
        slope = log_p.exp_()
        slope.scatter_add_(-1, targets[:, None], slope.new_full((len(targets), 1), -1.0))
    return _Sum.apply(logits, values, slope, weights)


def kl_sum(logits: Tensor, teacher_logits: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights_i x KL(teacher_i || student_i), the forward KL over the whole vocabulary.

    Value and gradient are exactly zero where both logits are equal bit for bit.
    """
    with torch.no_grad():
        log_q = torch.log_softmax(logits, -1, dtype=torch.float32)
        log_p = torch.log_softmax(teacher_logits, -1, dtype=torch.float32)
        p = log_p.exp()
        values = log_p.sub_(log_q)
        slope = log_q.exp_().sub_(p)
        # The slope sums to zero over the vocabulary. Added to p (log p - log q) it cancels the rounding error of log q
        # to first order, and makes every summand non-negative: a KL of 1e-6 nats is not lost in float32.
        values = values.mul_(p).add_(slope).sum(-1).clamp_min_(0.0)
    return _Sum.apply(logits, values, slope, weights)


def kl_topk_sum(logits: Tensor, top_ids: Tensor, top_logprobs: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i weights_i x KL over k + 1 classes: the teacher's k listed tokens, and one bucket for all others.

    The bucket's teacher mass is 1 - sum exp(top_logprobs), at least 0; where it is 0 the bucket contributes nothing.
    Merging classes can only lose information, so this is a lower bound of the full KL (log-sum inequality).
    """
    with torch.no_grad():
        z = logits.float()
        top_logprobs = top_logprobs.float()
        log_z = torch.logsumexp(z, -1, keepdim=True)
        p = top_logprobs.exp()
        values = (p * (top_logprobs - (z.gather(-1, top_ids) - log_z))).sum(-1)
        mass = p.sum(-1, keepdim=True)
        slope = (z - log_z).exp_()
        if top_ids.shape[-1] < z.shape[-1]:
            rest = (1.0 - mass).clamp_min_(0.0)
            others = z.scatter(-1, top_ids, float("-inf"))
            # Not log(1 - student's top mass), which cancels to log 0 where the student is sure of a listed token.
            log_q_rest = torch.logsumexp(others, -1, keepdim=True)
            slope.mul_(mass + rest).sub_((others - log_q_rest).exp_().mul_(rest))
            bucket = torch.where(rest > 0, rest * (rest.log() - (log_q_rest - log_z)), 0.0)
            values = values + bucket.squeeze(-1)
        slope.scatter_add_(-1, top_ids, -p)
    return _Sum.apply(logits, values.clamp_min(0.0), slope, weights)
