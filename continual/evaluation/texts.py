"""The loss of a model on a text, and how far it has drifted from the start model there, in nats per token."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from continual.data.documents import losses_by_document, mean_per_token
from continual.data.rows import ROW_COLUMNS, column
from continual.errors import ContinualError
from continual.evaluation.names import TEXT_UNIT
from continual.forgetting import Score
from continual.models.forward import token_divergences, token_losses
from continual.store import Artefact

LOSS, DRIFT = "loss", "drift"
"""What is measured of a token, as an error calls it."""


def score_text(model: Any, name: str, rows: Artefact, start: Any = None) -> tuple[Score, list[dict[str, Any]]]:
    """Return the text's score and a record per document.

    Score = -(sum of nats / number of tokens) over tokens with weight > 0, `n` = documents that have any. With the model
    `start` the score has the drift from it, too: KL(start || model), summed over the predictions of the same tokens and
    divided by their number. Standard errors are those of `mean_per_token`, None for a single document. Documents are
    the source's: the pieces of one that is longer than a row are not independent.
    Raises ContinualError if there is nothing to score, or the loss or the drift is not finite.
    """
    found: dict[str, list[np.ndarray]] = {LOSS: [], DRIFT: []}
    for table in rows.tables():
        packed = {key: column(table, key) for key in ROW_COLUMNS}
        both = (token_losses(model, packed),) if start is None else token_divergences(model, start, packed)
        for kind, values in zip(found, both, strict=False):
            found[kind].append(values)
    records: list[dict[str, Any]] = []
    loss, error, nats = _ratio(name, rows, LOSS, found[LOSS])
    for document, (total, tokens) in nats.items():
        records.append({"task": name, "document": document, "nats_per_token": total / tokens, "tokens": tokens})
    count = sum(tokens for _, tokens in nats.values())
    score = Score(-loss, error, len(nats), TEXT_UNIT, "nll", "none", count)
    if start is None:
        return score, records
    drift, drift_error, divergences = _ratio(name, rows, DRIFT, found[DRIFT])
    for record in records:
        total, tokens = divergences[record["document"]]
        record["drift"] = total / tokens
    return replace(score, drift=drift, drift_stderr=drift_error), records


def _ratio(
    name: str, rows: Artefact, kind: str, values: list[np.ndarray]
) -> tuple[float, float | None, Mapping[int, tuple[float, int]]]:
    """Return nats per token, the standard error, and nats and tokens by document."""
    documents, nats, tokens = losses_by_document(rows, values)
    total, count = math.fsum(nats), int(tokens.sum())
    if not count or not math.isfinite(total):
        problem = "has no token to score" if not count else f"has a {kind} of {total} nats"
        raise ContinualError(f"the text `{name}` {problem}")
    ratio, error = mean_per_token(nats, tokens)
    by_document = zip(documents.tolist(), zip(nats.tolist(), tokens.tolist(), strict=True), strict=True)
    return ratio, error, dict(by_document)
