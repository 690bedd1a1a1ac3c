"""The loss of a model on a text, in nats per token."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from continual.errors import ContinualError
from continual.evaluation.names import TEXT_UNIT
from continual.store import Artefact

LOGIT_BYTES = 256 * 2**20
"""Largest block of float32 logits (rows x row_tokens x vocabulary) that a forward pass makes."""
TOKENS = 8192
"""Most tokens of a forward pass: with a small vocabulary, attention needs more memory than the logits."""
COLUMNS = ("ids", "positions", "weights", "documents")


def blocks(rows: Artefact, size: int) -> Iterator[dict[str, np.ndarray]]:
    """The columns of a rows artefact, each [at most `size`, row_tokens], shard by shard."""
    for table in rows.tables():
        for start in range(0, table.num_rows, size):
            block = table.slice(start, size)
            count = block.num_rows
            yield {
                name: np.concatenate([chunk.flatten().to_numpy() for chunk in block.column(name).chunks]).reshape(
                    count, -1
                )
                for name in COLUMNS
            }


def token_losses(model: Any, ids: np.ndarray, positions: np.ndarray, chunk: int = 1024) -> np.ndarray:
    """Nats of every token given what is before it in its row, float32 [rows, row_tokens]; the first column is 0.

    No mask, but position ids that restart with every document: so transformers keeps packed documents apart. The
    log-softmax is taken in float32, `chunk` positions at a time.
    """
    import torch

    with torch.inference_mode():
        inputs = torch.from_numpy(np.array(ids, dtype=np.int64)).to(model.device)
        places = torch.from_numpy(np.array(positions, dtype=np.int64)).to(model.device)
        logits = model(input_ids=inputs, position_ids=places, attention_mask=None, use_cache=False).logits
        flat, targets = logits[:, :-1].flatten(0, 1), inputs[:, 1:].flatten()
        losses = torch.cat(
            [
                torch.nn.functional.cross_entropy(
                    flat[at : at + chunk].float(), targets[at : at + chunk], reduction="none"
                )
                for at in range(0, len(targets), chunk)
            ]
        )
        out = np.zeros(ids.shape, dtype=np.float32)
        out[:, 1:] = losses.view(len(ids), -1).cpu().numpy()
    return out


def score_text(model: Any, name: str, rows: Artefact) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The text's score and a record per document.

    Score = -(sum of nats / number of tokens) over tokens with weight > 0, `n` = documents that have any. Its standard
    error is that of a ratio whose units are documents, because tokens of one document are not independent:
    sqrt(D / (D - 1) x sum_d (nats_d - ratio x tokens_d)^2) / tokens; None for a single document.
    Raises ContinualError if there is nothing to score or the loss is not finite.
    """
    nats: dict[int, float] = {}
    tokens: dict[int, int] = {}
    tokens_at_once = min(TOKENS, LOGIT_BYTES // (4 * int(model.config.get_text_config().vocab_size)))
    for block in blocks(rows, max(1, tokens_at_once // rows_width(rows))):
        losses = token_losses(model, block["ids"], block["positions"])
        scored = block["weights"] > 0
        found, at = np.unique(block["documents"][scored], return_inverse=True)
        sums = np.bincount(at, weights=losses[scored].astype(np.float64))
        for document, total, count in zip(found.tolist(), sums.tolist(), np.bincount(at).tolist(), strict=True):
            nats[document] = nats.get(document, 0.0) + total
            tokens[document] = tokens.get(document, 0) + count
    total, count = math.fsum(nats.values()), sum(tokens.values())
    if not count or not math.isfinite(total):
        problem = "has no token to score" if not count else f"has a loss of {total} nats"
        raise ContinualError(f"the text `{name}` {problem}")
    ratio = total / count
    squares = math.fsum((nats[d] - ratio * tokens[d]) ** 2 for d in nats)
    n = len(nats)
    error = math.sqrt(n / (n - 1) * squares) / count if n > 1 else None
    score = {"score": -ratio, "stderr": error, "n": n, "unit": TEXT_UNIT, "metric": "nll", "filter": "none"}
    records = [
        {"task": name, "document": d, "nats_per_token": nats[d] / tokens[d], "tokens": tokens[d]} for d in sorted(nats)
    ]
    return {**score, "tokens": count}, records


def rows_width(rows: Artefact) -> int:
    """`row_tokens` of a rows artefact. Raises ContinualError if it has no shard."""
    for table in rows.tables():
        return int(table.schema.field("ids").type.list_size)
    raise ContinualError(f"the rows {rows.hash} hold nothing")
