"""The loss of a model on a text, in nats per token."""

import math
from typing import Any

from continual.data.documents import losses_by_document
from continual.data.rows import ROW_COLUMNS, column
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
    losses = (token_losses(model, {key: column(table, key) for key in ROW_COLUMNS}) for table in rows.tables())
    documents, nats, tokens = losses_by_document(rows, losses)
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
