"""The loss of a model on a text, in nats per token."""

import math
from typing import Any

import numpy as np

from continual.data.rows import ROW_COLUMNS, column, read_origins
from continual.errors import ContinualError
from continual.evaluation.names import TEXT_UNIT
from continual.forgetting import Score
from continual.models.forward import token_losses
from continual.store import Artefact


def score_text(model: Any, name: str, rows: Artefact) -> tuple[Score, list[dict[str, Any]]]:
    """Return the text's score and a record per document.

    Score = -(sum of nats / number of tokens) over tokens with weight > 0, `n` = documents that have any. Its standard
    error is that of a ratio whose units are documents, because tokens of one document are not independent:
    sqrt(D / (D - 1) x sum_d (nats_d - ratio x tokens_d)^2) / tokens; None for a single document. Documents are the
    source's: the pieces of one that is longer than a row are not independent either.
    Raises ContinualError if there is nothing to score or the loss is not finite.
    """
    losses, numbers = [np.zeros(0)], [np.zeros(0, np.int32)]
    for table in rows.tables():
        columns = {key: column(table, key) for key in ROW_COLUMNS}
        scored = columns["weights"] > 0
        losses.append(token_losses(model, columns)[scored])
        numbers.append(columns["documents"][scored])
    whose, origins = np.concatenate(numbers), read_origins(rows)
    documents, index = np.unique(whose if origins is None else origins[whose], return_inverse=True)
    nats, tokens = np.bincount(index, np.concatenate(losses)), np.bincount(index)
    total, count, n = math.fsum(nats), int(tokens.sum()), len(documents)
    if not count or not math.isfinite(total):
        problem = "has no token to score" if not count else f"has a loss of {total} nats"
        raise ContinualError(f"the text `{name}` {problem}")
    ratio = total / count
    squares = math.fsum((nats - ratio * tokens) ** 2)
    error = math.sqrt(n / (n - 1) * squares) / count if n > 1 else None
    records = [
        {"task": name, "document": d, "nats_per_token": nats / tokens, "tokens": tokens}
        for d, nats, tokens in zip(documents.tolist(), nats.tolist(), tokens.tolist(), strict=True)
    ]
    return Score(-ratio, error, n, TEXT_UNIT, "nll", "none", count), records
