"""Packing documents into rows of a fixed length: best fit decreasing within a window, and the rows' arrays."""

import bisect
from collections.abc import Sequence

import numpy as np

Arrays = dict[str, np.ndarray]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of item numbers whose lengths sum to at most `capacity`; every item in exactly one bin.

    Best fit decreasing: each item, longest first, goes to the fullest bin that still holds it. Raises ValueError for an
    item longer than `capacity`. Ties are broken by item number, so the result is a function of the lengths alone.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[item] > capacity:
            raise ValueError(f"item {item} has length {lengths[item]}, more than {capacity}")
        place = bisect.bisect_left(room, (lengths[item], -1))
        left, number = room.pop(place) if place < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        bisect.insort(room, (left - lengths[item], number))
    return bins


def pack_rows(ids: Sequence[np.ndarray], weights: Sequence[np.ndarray], first_document: int, row_tokens: int) -> Arrays:
    """Return rows of `row_tokens` from documents that are numbered from `first_document` on.

    Rows are in the order of their first document (see `fill_rows`).
    """
    bins = sorted(sorted(items) for items in best_fit([len(document) for document in ids], row_tokens))
    return fill_rows(bins, ids, weights, range(first_document, first_document + len(ids)), row_tokens)


def fill_rows(
    bins: Sequence[Sequence[int]],
    ids: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    documents: Sequence[int],
    row_tokens: int,
) -> Arrays:
    """Return a row per bin of documents: ids, positions, weights and documents, each [rows, row_tokens].

    Positions restart with every document (and with the padding), which is what keeps packed documents apart in
    attention; padding has weight 0 and document -1. `documents` are the documents' numbers.
    """
    rows = empty_rows(len(bins), row_tokens)
    for number, items in enumerate(bins):
        start = 0
        for item in items:
            span = slice(start, start + len(ids[item]))
            rows["ids"][number, span] = ids[item]
            rows["weights"][number, span] = weights[item]
            rows["positions"][number, span] = np.arange(len(ids[item]))
            rows["documents"][number, span] = documents[item]
            start = span.stop
        rows["positions"][number, start:] = np.arange(row_tokens - start)
    return rows


def empty_rows(count: int, row_tokens: int) -> Arrays:
    """Return `count` rows of padding: nothing in them has a weight."""
    shape = (count, row_tokens)
    return {
        "ids": np.zeros(shape, np.int32),
        "positions": np.tile(np.arange(row_tokens, dtype=np.int32), (count, 1)),
        "weights": np.zeros(shape, np.float32),
        "documents": np.full(shape, -1, np.int32),
    }


def concatenate(parts: Sequence[Arrays]) -> Arrays:
    """Return rows one after another."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
