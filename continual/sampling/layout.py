"""Which samples stand in which row: a pure function of their lengths, whatever was sampled in which order."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from continual.contract.requests import least_samples
from continual.data.packing import best_fit
from continual.store import digest

WINDOW = 1024
"""Consecutive samples packed together; larger wastes less room, smaller answers sooner."""
STEPS = 16
"""Parts of a window, or of the rows asked for, by which the number of samples is raised until they suffice."""

Bins = list[list[int]]
"""Places of samples, row by row."""


@dataclass(frozen=True)
class Layout:
    """Rows of samples by place: those held out come first, then those of every window."""

    held_out: Bins
    windows: list[Bins]

    @property
    def rows(self) -> int:
        """The rows that are not held out."""
        return sum(map(len, self.windows))


class Packing:
    """Lays out the first samples of a set, as many as are asked for.

    Args:
        numbers: Numbers of the samples that there are, rising; those of failed requests are missing.
        lengths: Their lengths in tokens.
        row_tokens: Tokens in a row.
        held_out: Rows wanted of documents that are in no other row.
    """

    def __init__(self, numbers: np.ndarray, lengths: np.ndarray, row_tokens: int, held_out: int):
        self.numbers, self.lengths, self.row_tokens, self.wanted = numbers, lengths, row_tokens, held_out
        self._bins: dict[tuple[int, ...], Bins] = {}

    def extend(self, numbers: np.ndarray, lengths: np.ndarray) -> None:
        """Add samples that have been made since; what is laid out of those before stays."""
        self.numbers, self.lengths = np.concatenate([self.numbers, numbers]), np.concatenate([self.lengths, lengths])

    def held_out_is_known(self, windows: int) -> bool:
        """Return whether no sample behind so many windows can change which documents are held out."""
        return not self.wanted or self._pool([self._places(w * WINDOW, (w + 1) * WINDOW) for w in range(windows)])[1]

    def layout(self, count: int) -> Layout:
        """Return the rows of the samples with numbers below `count`."""
        windows = [self._places(first, min(first + WINDOW, count)) for first in range(0, count, WINDOW)]
        held = self._held_out(windows)
        apart = set(held)
        return Layout(
            self._pack(held), [self._shuffled(w, [p for p in part if p not in apart]) for w, part in enumerate(windows)]
        )

    def enough(self, rows: int, available: int) -> tuple[int, Layout | None]:
        """Return the number of samples that fill `rows` rows beside those held out, and their layout.

        The number rises from the least that can suffice by what is missing, each sample filling a row at most, in
        steps. It depends on the samples below it alone. Without a layout it is the next number to try, and more than
        the `available` ones.
        """
        step = max(1, min(WINDOW, rows) // STEPS)
        count = -(-least_samples(rows, self.wanted) // step) * step
        while count <= available:
            found = self.layout(count)
            short = max(rows - found.rows, self.wanted - len(found.held_out))
            if short <= 0:
                return count, found
            count += step * max(1, short // step)
        return count, None

    def estimate(self, rows: int, available: int) -> int:
        """Return about how many samples fill `rows` rows, from what the `available` ones fill: rather too many."""
        found = self.layout(available)
        filled = (found.rows + len(found.held_out)) / available
        if not filled:
            return 2 * available
        mean, deviation = float(self.lengths.mean()), float(self.lengths.std())
        margin = 1 + 2 * deviation / mean / math.sqrt(len(self.lengths)) + 1 / STEPS
        return math.ceil(least_samples(rows, self.wanted) / filled * margin)

    def _places(self, first: int, end: int) -> list[int]:
        begin, stop = np.searchsorted(self.numbers, [first, end])
        return list(range(begin, stop))

    def _held_out(self, windows: list[list[int]]) -> list[int]:
        """Return the most documents that fill no more than the rows wanted, half of a window by their numbers' hash.

        Later windows follow only where earlier ones do not suffice.
        """
        pool, room = self._pool(windows)[0], self.wanted * self.row_tokens
        fewest, most = 0, int(np.searchsorted(np.cumsum(self.lengths[np.asarray(pool, np.int64)]), room, side="right"))
        while fewest < most:
            middle = (fewest + most + 1) // 2
            if len(self._pack(pool[:middle])) <= self.wanted:
                fewest = middle
            else:
                most = middle - 1
        return pool[:fewest]

    def _pool(self, windows: list[list[int]]) -> tuple[list[int], bool]:
        """Return the documents that may be held out, and whether they fill more than the rows wanted."""
        pool: list[int] = []
        tokens, room = 0, self.wanted * self.row_tokens
        for part in windows:
            if tokens > room:
                break
            drawn = sorted(part, key=lambda place: _hash(int(self.numbers[place])))[: len(part) // 2]
            tokens += sum(int(self.lengths[place]) for place in drawn)
            pool += drawn
        return pool, tokens > room

    def _pack(self, places: list[int]) -> Bins:
        key = tuple(places)
        if key not in self._bins:
            packed = best_fit([int(self.lengths[place]) for place in places], self.row_tokens)
            self._bins[key] = sorted(sorted(places[item] for item in items) for items in packed)
        return self._bins[key]

    def _shuffled(self, window: int, places: list[int]) -> Bins:
        """Return a window's rows in random order: packing puts rows of many short documents first."""
        bins = self._pack(places)
        random = np.random.Generator(np.random.Philox(int(digest(["window", window, len(bins)]), 16) % (1 << 64)))
        return [bins[place] for place in random.permutation(len(bins))]


def _hash(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=8).digest()
