"""Documents as vectors: the means of a frozen model's last hidden states."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from continual.data.packing import pack_rows
from continual.models.forward import BLOCK_TOKENS, hidden_states


def mean_hidden_states(
    model: Any, ids: Sequence[np.ndarray], weights: Sequence[np.ndarray], row_tokens: int
) -> np.ndarray:
    """Return the mean last hidden state of each document, float32 [documents, H].

    Documents share rows of `row_tokens` and do not see each other there; none is longer. The mean, in float64, is over
    the tokens with weight > 0; zeros for a document that has none.
    """
    rows = pack_rows(ids, weights, 0, row_tokens)
    size = max(1, BLOCK_TOKENS // row_tokens)
    sums = None
    with torch.inference_mode():
        for first in range(0, len(rows["ids"]), size):
            block = {name: values[first : first + size] for name, values in rows.items()}
            at = {name: torch.from_numpy(block[name].astype(np.int64)) for name in ("ids", "positions")}
            hidden = hidden_states(model, at["ids"].to(model.device), at["positions"].to(model.device))
            if sums is None:
                sums = hidden.new_zeros((len(ids), hidden.shape[-1]), dtype=torch.float64)
            counted = block["weights"].reshape(-1) > 0
            whose = torch.from_numpy(block["documents"].reshape(-1)[counted].astype(np.int64))
            places = torch.from_numpy(np.flatnonzero(counted))
            sums.index_add_(0, whose.to(model.device), hidden[places.to(model.device)].double())
    assert sums is not None, "give at least one document"
    counts = np.array([max(1, np.count_nonzero(weight > 0)) for weight in weights])
    return np.asarray(sums.cpu().numpy() / counts[:, None], np.float32)
