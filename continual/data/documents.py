"""From the losses of tokens in packed rows to those of documents."""

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
    whose, origins = np.concatenate(numbers), read_origins(rows)
    documents, index = np.unique(whose if origins is None else origins[whose], return_inverse=True)
    return documents, np.bincount(index, np.concatenate(found)), np.bincount(index)
