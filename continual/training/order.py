"""The rows of each step: a pure function of (seed, step, world size, rank), never of timing."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from continual.contract.stream import Stream
from continual.store import digest


@lru_cache(maxsize=8)
def permutation(seed: int, stream: str, epoch: int, rows: int) -> np.ndarray:
    """Return the order of an epoch's rows; shape [rows], int64."""
    key = int(digest([seed, stream, epoch]), 16) % (1 << 64)
    return np.random.Generator(np.random.Philox(key)).permutation(rows)


def shuffled(seed: int, stream: str, positions: np.ndarray, rows: int) -> np.ndarray:
    """Return the row numbers at positions of an endless stream: epoch after epoch, each in its own order."""
    epochs, within = np.divmod(positions, rows)
    out = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs):
        mask = epochs == epoch
        out[mask] = permutation(seed, stream, int(epoch), rows)[within[mask]]
    return out


def held_out_rows(stream: Stream, rows: int) -> np.ndarray:
    """Return the numbers of the rows that are kept from training, of a stream of so many; rising.

    A permutation that depends on the rows alone draws those of a shuffled stream: every stage keeps the same ones.
    """
    if not stream.shuffle:
        return np.arange(min(stream.held_out, rows))
    return np.sort(permutation(0, f"held out of {stream.rows.hash}", 0, rows)[: stream.held_out])


@lru_cache(maxsize=8)
def trained_rows(stream: Stream, rows: int) -> np.ndarray:
    """Return the numbers of the other rows, rising."""
    return np.setdiff1d(np.arange(rows), held_out_rows(stream, rows))


def step_positions(per_step: int, step: int) -> np.ndarray:
    """Return the positions in a stream that its step `step` (0-based) reads."""
    return np.arange(step * per_step, (step + 1) * per_step)


def first_ranks(streams: Iterable[Stream], world_size: int) -> dict[str, int]:
    """Return by stream the rank that takes a step's first row.

    It is the one behind that which takes the last row of the stream before: no rank gets an odd row of every stream.
    """
    firsts, rows = {}, 0
    for stream in streams:
        firsts[stream.name] = rows % world_size
        rows += stream.rows_per_step
    return firsts


def rank_share(numbers: np.ndarray, rank: int, world_size: int, first: int = 0) -> np.ndarray:
    """Return a rank's part of a step's row numbers: every world_size-th, filled with -1 (padding) to equal counts.

    `first` is the rank that takes the first row.
    """
    count = -(-len(numbers) // world_size)
    own = numbers[(rank - first) % world_size :: world_size]
    return np.concatenate([own, np.full(count - len(own), -1, np.int64)])


def in_order(shares: Sequence[np.ndarray], first: int) -> np.ndarray:
    """Return a step's row numbers, given the `rank_share` of every rank."""
    size = len(shares)
    numbers = np.stack([shares[(first + place) % size] for place in range(size)], axis=1).reshape(-1)
    return numbers[numbers >= 0]
