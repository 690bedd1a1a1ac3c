"""The columns of some rows under a frozen model. Values are in nats, from a float32 log-softmax."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from continual.data.packing import Arrays

LOGIT_BYTES = 256 * 2**20
"""Largest block of float32 logits (rows x row_tokens x vocabulary) that a forward pass makes, but one row at least."""
CHUNK_TOKENS = 1024
"""Positions whose log-probabilities exist at one time."""


def nll_columns(model: Any, rows: Arrays) -> Arrays:
    """`nll` float32 [rows, T]: -log p(token t | its document before t); 0 for first tokens and padding."""
    nll = np.zeros(rows["ids"].shape, np.float32)
    for at, log_p in _log_probabilities(model, rows):
        tokens = torch.from_numpy(rows["ids"][at].astype(np.int64)).to(log_p.device)
        nll[at] = -log_p.gather(-1, tokens[:, None]).squeeze(-1).cpu().numpy()
    return {"nll": nll}


def topk_columns(model: Any, rows: Arrays, k: int) -> Arrays:
    """The model's k likeliest tokens t and their log-probabilities, likeliest first.

    `top_ids` int32 and `top_logprobs` float32, both [rows, T, k]: the distribution of token t from what its document
    has before t; zeros for first tokens and padding, which no loss reads. `k` is at most the vocabulary.
    """
    k = min(k, int(model.config.get_text_config().vocab_size))
    shape = (*rows["ids"].shape, k)
    ids, logprobs = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for at, log_p in _log_probabilities(model, rows):
        values, tokens = log_p.topk(k, dim=-1)
        ids[at], logprobs[at] = tokens.cpu().numpy(), values.cpu().numpy()
    return {"top_ids": ids, "top_logprobs": logprobs}


def _log_probabilities(model: Any, rows: Arrays) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], torch.Tensor]]:
    """Places (row, t) of tokens that have something before them, and log p of them [places, V], chunk by chunk.

    No attention mask and no cache, but position ids that restart with every document: so transformers keeps packed
    documents apart.
    """
    count, width = rows["ids"].shape
    size = max(1, LOGIT_BYTES // (4 * width * int(model.config.get_text_config().vocab_size)))
    predicted = (rows["documents"] >= 0) & (rows["positions"] > 0)
    with torch.inference_mode():
        for first in range(0, count, size):
            block = slice(first, first + size)
            ids, positions = (
                torch.from_numpy(rows[name][block].astype(np.int64)).to(model.device) for name in ("ids", "positions")
            )
            logits = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits
            row, t = np.nonzero(predicted[block])
            for start in range(0, len(row), CHUNK_TOKENS):
                r, c = row[start : start + CHUNK_TOKENS], t[start : start + CHUNK_TOKENS]
                yield (first + r, c), torch.log_softmax(logits[r, c - 1], -1, dtype=torch.float32)
