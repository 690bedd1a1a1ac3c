"""Sample until rows suffice, and publish each shard of rows as soon as no later sample can change it."""

import time
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from continual.config.schema import Generate
from continual.data.packing import concatenate
from continual.data.rows import row_facts, rows_table
from continual.sampling.layout import WINDOW, Layout, Packing
from continual.sampling.pace import Pace
from continual.sampling.sets import numbers_of
from continual.sampling.settings import SampleSettings
from continual.sampling.wanted import Wanted
from continual.sampling.write import Sampler, pack_samples
from continual.store import Artefact
from continual.store.artefact import Writer

Counts = dict[str, int]
LOOK_SECONDS = 0.2


def fill_rows(
    rows: Writer,
    wanted: Wanted,
    samples: Writer,
    model: str,
    dtype: str,
    settings: SampleSettings,
    config: Generate,
    pace: Pace | None = None,
) -> Iterator[Counts]:
    """Make what is missing of a set of samples until it fills the rows wanted, and publish these.

    The engine starts when the first sample is missing, and stays until there are enough; with `pace` it pauses where it
    is too far ahead of the training.

    Yields:
        After each shard of samples: `samples`, `failed`, `tokens` in all, and `wanted`, how many there should be as
        far as is known; the same with `paused` when a pause begins. At last also `count`, how many of them the rows
        hold, `held_out`, the rows held out, and `distinct` (see `Sampler`).

    Raises:
        ContinualError: More requests failed than `generate.max_failed` allows, or the engine ended early.
    """
    filling = Filling(rows, samples.artefact, wanted)
    with Sampler(samples, model, dtype, settings, config) as sampler:
        target = filling.advance()
        while not filling.done:
            if (goal := filling.reach(pace, target)) <= filling.available:
                yield {**sampler.counts, "wanted": target, "paused": 1}
                while (goal := filling.reach(pace, target)) <= filling.available:
                    time.sleep(LOOK_SECONDS)
            for counts in sampler.up_to(min(target, sampler.whole_shards(filling.available, goal))):
                yield {**counts, "wanted": target}
                # Enough may be there before the round ends: the number that a round asks for is rather too large.
                filling.advance()
                if filling.done:
                    break
            target = filling.advance()
        yield {**sampler.counts, "distinct": sampler.distinct(), **filling.facts()}


def pack_rows(rows: Writer, wanted: Wanted, samples: Artefact) -> Iterator[Counts | None]:
    """Publish the rows wanted of a set of samples that there is; yield None if it does not suffice."""
    filling = Filling(rows, samples, wanted)
    filling.advance()
    yield filling.facts() if filling.done else None


class Filling:
    """Rows of a set of samples that may grow, one shard for every window of samples; the first begins with those held
    out.
    """

    def __init__(self, rows: Writer, samples: Artefact, wanted: Wanted):
        self.rows, self.samples, self.wanted = rows, samples, wanted
        self.done = False
        self._packing = Packing(np.zeros(0, np.int64), np.zeros(0, np.int64), wanted.row_tokens, wanted.held_out)
        self._tables: list[pa.Table] = []
        self.available = 0
        self._count = self._held_out = self._written = 0
        self._starts = [0]

    def advance(self) -> int:
        """Publish the shards of rows that are final by now; return how many samples there should be.

        `done` says whether they are there.
        """
        self._look()
        packing, rows, available = self._packing, self.wanted.rows or 0, self.available
        if self.wanted.count is None:
            count, layout = packing.enough(rows, available)
        else:
            count, layout = self.wanted.count, None
            if count <= available:
                layout = packing.layout(count)
        if layout is not None:
            self._publish(layout, len(layout.windows))
            self.done, self._count = True, count
            return count
        whole = min(available, count) // WINDOW
        if whole > self._written and packing.held_out_is_known(whole):
            self._publish(packing.layout(whole * WINDOW), whole)
        known = self.wanted.count is not None or not available
        return count if known else max(count, packing.estimate(rows, available))

    def reach(self, pace: Pace | None, target: int) -> int:
        """Return how many samples there may be by now."""
        if pace is None:
            return target
        whole = self.available // WINDOW
        shards = pace.shards(self._starts, self._held_out)
        if shards is None:  # no pause, but one to come may soon be due
            return WINDOW * (whole + 1)
        # Rows whose share to hold out is not known yet wait for further samples.
        return WINDOW * (max(shards, whole + 1) if whole > self._written else shards)

    def facts(self) -> Counts:
        """Return how many samples the rows hold, and how many rows are held out."""
        return {"count": self._count, "held_out": self._held_out}

    def _look(self) -> None:
        """Read the lengths of the samples that are new, as far as none before them is missing."""
        shards = self.samples.shards()
        for shard in range(len(self._tables), len(shards)):
            table = self.samples.table(shard)
            lengths = sum(pc.list_value_length(table[name]).to_numpy() for name in ("start", "tokens"))
            self._packing.extend(table["number"].to_numpy(), lengths)
            self._tables.append(table)
            self.available = numbers_of(shards[shard]).stop

    def _publish(self, layout: Layout, shards: int) -> None:
        """Publish the first `shards` shards of rows, as far as they are missing."""
        missing = [shard for shard in self.rows.missing(shards) if shard >= self._written]
        self._written, self._held_out = shards, len(layout.held_out)
        sizes = [len(window) for window in layout.windows[:shards]]
        self._starts = [0, *(self._held_out + rows for rows in accumulate(sizes))]
        if not missing:
            return
        table = pa.concat_tables(self._tables)
        for shard in missing:
            parts = [layout.windows[shard]] if shard else [layout.held_out, layout.windows[0]]
            rows = concatenate([pack_samples(table, bins, self.wanted.row_tokens) for bins in parts])
            held_out = {} if shard else {"held_out": len(layout.held_out)}
            self.rows.put(shard, rows_table(rows), **row_facts(rows), **held_out)
