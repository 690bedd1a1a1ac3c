"""Columns of a frozen model for packed rows, in nats."""

from typing import Any

import numpy as np

from continual.data.packing import Arrays
from continual.models.forward import log_probabilities, token_losses, vocabulary_size


def nll_columns(model: Any, rows: Arrays) -> Arrays:
    """Return `nll` float32 [rows, T]: -log p(token t | its document before t); 0 for first tokens and padding."""
    return {"nll": token_losses(model, rows)}


def topk_columns(model: Any, rows: Arrays, k: int) -> Arrays:
    """Return the model's k likeliest tokens at t and their log-probabilities, likeliest first.

    `top_ids` int32 and `top_logprobs` float32, both [rows, T, k]: the distribution of token t given its document
    before t; zeros for first tokens and padding, which no loss reads. `k` is at most the vocabulary.
    """
    k = min(k, vocabulary_size(model))
    shape = (*rows["ids"].shape, k)
    ids, logprobs = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for places, log_p in log_probabilities(model, rows):
        values, tokens = log_p.topk(k, dim=-1)
        ids[places], logprobs[places] = tokens.cpu().numpy(), values.cpu().numpy()
    return {"top_ids": ids, "top_logprobs": logprobs}
