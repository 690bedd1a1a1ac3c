"""Rows chosen from stored ones, stored as rows of their own."""

import numpy as np

from continual.api import ROW_COLUMNS, Arrays, RowReader, Writer, row_facts, rows_table

SHARD_ROWS = 2048


def write_chosen(writer: Writer, readers: list[RowReader], numbers: np.ndarray) -> None:
    """Write and finish an artefact of rows, which are given by their numbers in the concatenation of all readers'."""
    document = 0
    for shard, first in enumerate(range(0, len(numbers), SHARD_ROWS)):
        rows, document = _renumbered(_take(readers, numbers[first : first + SHARD_ROWS]), document)
        writer.put(shard, rows_table(rows), **row_facts(rows))
    rows_of = [reader.artefact.hash for reader in readers]
    writer.finish(documents=document, dropped=0, cut=0, rows_of=rows_of)


def _take(readers: list[RowReader], numbers: np.ndarray) -> Arrays:
    """Return rows by their number in the concatenation of all readers' rows."""
    ends = np.cumsum([len(reader) for reader in readers])
    owner = np.searchsorted(ends, numbers, side="right")
    found: Arrays = {}
    for index, reader in enumerate(readers):
        at = np.flatnonzero(owner == index)
        if len(at):
            for name, values in reader.take(numbers[at] - (ends[index] - len(reader))).items():
                found.setdefault(name, np.zeros((len(numbers), values.shape[1]), values.dtype))[at] = values
    return {name: found[name] for name in ROW_COLUMNS}


def _renumbered(rows: Arrays, first: int) -> tuple[Arrays, int]:
    """Return the rows with their documents numbered from `first` on, and the next number: stages repeat numbers."""
    real = rows["documents"] >= 0
    begins = (real & (rows["positions"] == 0)).reshape(-1)
    numbers = (first - 1 + np.cumsum(begins)).reshape(real.shape)
    return {**rows, "documents": np.where(real, numbers, -1).astype(np.int32)}, first + int(begins.sum())
