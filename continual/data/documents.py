"""From the losses of tokens in packed rows to those of documents, and to a mean with its error."""

import math
from collections.abc import Iterable

import numpy as np

from continual.data.rows import column, read_origins
from continual.store import Artefact


def losses_by_document(rows: Artefact, losses: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the documents [D] in the order of their source, their nats [D], and their tokens [D].

    Tokens with weight > 0 count alone. Documents are the source's: a long one, which rows hold in pieces, is one.

    Args:
        rows: Complete rows.
        losses: Nats of every token [rows, row tokens], an array for each shard of the rows.
    """
    found, numbers = [np.zeros(0)], [np.zeros(0, np.int32)]
    for table, nats in zip(rows.tables(), losses, strict=True):
        scored = column(table, "weights") > 0
        found.append(nats[scored])
        numbers.append(column(table, "documents")[scored])
    documents, index = np.unique(of_source(rows, np.concatenate(numbers)), return_inverse=True)
    return documents, np.bincount(index, np.concatenate(found)), np.bincount(index)


def of_source(rows: Artefact, documents: np.ndarray) -> np.ndarray:
    """Return the source's document of each of the rows' documents: the pieces of a long one are one.

    Rows that still grow are of samples, which are whole.
    """
    origins = read_origins(rows) if rows.complete else None
    return documents if origins is None else origins[documents]


def mean_per_token(nats: np.ndarray, tokens: np.ndarray) -> tuple[float, float | None]:
    """Return the sum of nats [D] by the sum of tokens [D], of which there are some, and its standard error.

    It is that of a ratio whose units are documents, because tokens of one document are not independent:
    sqrt(D / (D - 1) x sum_d (nats_d - ratio x tokens_d)^2) / tokens; None for a single document.
    """
    count, units = int(tokens.sum()), len(nats)
    ratio = math.fsum(nats) / count
    squares = math.fsum((nats - ratio * tokens) ** 2)
    return ratio, math.sqrt(units / (units - 1) * squares) / count if units > 1 else None
