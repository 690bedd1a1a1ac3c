"""Packing documents into rows of a fixed length: best fit decreasing within a window, and the rows' arrays."""

import bisect
from collections.abc import Iterable, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of item numbers whose lengths sum to at most `capacity`; every item in exactly one bin.

    Best fit decreasing: each item, longest first, goes to the fullest bin that still holds it. Raises ValueError for an
    item longer than `capacity`. Ties are broken by item number, so the result is a function of the lengths alone.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[item] > capacity:
            raise ValueError(f"item {item} has length {lengths[item]}, more than {capacity}")
        at = bisect.bisect_left(room, (lengths[item], -1))
        if at < len(room):
            left, number = room.pop(at)
            bins[number].append(item)
        else:
            left, number = capacity, len(bins)
            bins.append([item])
        bisect.insort(room, (left - lengths[item], number))
    return bins


def pack_rows(ids: Sequence[np.ndarray], weights: Sequence[np.ndarray], first_document: int, row_tokens: int) -> Arrays:
    """Rows of `row_tokens` from documents: arrays ids, positions, weights, documents of shape [rows, row_tokens].

    Positions restart with every document (and with the padding), which is what keeps packed documents apart in
    attention; padding has weight 0 and document -1. Rows stand in the order of their first document.
    """
    bins = sorted((sorted(one) for one in best_fit([len(x) for x in ids], row_tokens)), key=lambda one: one[0])
    rows = empty_rows(len(bins), row_tokens)
    for number, items in enumerate(bins):
        at = 0
        for item in items:
            span = slice(at, at + len(ids[item]))
            rows["ids"][number, span] = ids[item]
            rows["weights"][number, span] = weights[item]
            rows["positions"][number, span] = np.arange(len(ids[item]))
            rows["documents"][number, span] = first_document + item
            at = span.stop
        rows["positions"][number, at:] = np.arange(row_tokens - at)
    return rows


def empty_rows(count: int, row_tokens: int) -> Arrays:
    """`count` rows of padding: nothing in them has a weight."""
    shape = (count, row_tokens)
    return {
        "ids": np.zeros(shape, np.int32),
        "positions": np.tile(np.arange(row_tokens, dtype=np.int32), (count, 1)),
        "weights": np.zeros(shape, np.float32),
        "documents": np.full(shape, -1, np.int32),
    }


def concatenate(parts: Iterable[Arrays]) -> Arrays:
    """Rows one after another."""
    found = list(parts)
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}
