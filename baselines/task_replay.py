"""Replay of real rows of the tasks learned before: the classic reference."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.api import (
    ROW_COLUMNS,
    Arrays,
    Artefact,
    Context,
    Replay,
    RowReader,
    StageView,
    digest,
    row_facts,
    rows_table,
)

SHARD_ROWS = 2048


def reservoir(total: int, size: int, seed: int) -> np.ndarray:
    """Return the numbers of the rows that a reservoir of `size` holds after `total` rows, in random order; int64.

    Vitter's algorithm R: every row is kept with the same probability, and what is kept of the first n rows was kept
    when only n had gone by.
    """
    random = np.random.Generator(np.random.Philox(int(digest(["reservoir", seed]), 16) % (1 << 64)))
    kept = np.arange(min(size, total))
    later = np.arange(size, total)
    places = random.integers(0, later + 1)
    for number in np.flatnonzero(places < size):
        kept[places[number]] = later[number]
    order = np.random.Generator(np.random.Philox(int(digest(["order", seed]), 16) % (1 << 64)))
    return order.permutation(kept)


class TaskReplay(Replay):
    """Next-token loss on a uniform sample of the rows that earlier stages trained on.

    It needs the earlier tasks' data, which the other methods do without. The sample is a seeded reservoir over the
    rows of all earlier stages, so a task with more rows is rehearsed more.
    """

    reference: ClassVar[str] = "experience replay; Chaudhry et al. 2019 (1902.10486); reservoir: Vitter 1985"
    renamed: ClassVar[dict[str, str]] = {"share": "ratio", "rows": "buffer_rows"}

    type: Literal["task_replay"] = "task_replay"
    buffer_rows: int | None = Field(
        None, ge=1, description="rows kept of all earlier stages; null: as many as the stage uses"
    )
    seed: int | None = Field(None, ge=0, description="of the sample; null: the sequence's")

    def active(self, view: StageView) -> bool:
        return view.number > 1

    def most_rows(self, view: StageView) -> int | None:
        return self.buffer_rows

    def rows(self, ctx: Context) -> Artefact:
        seed = ctx.view.seed if self.seed is None else self.seed
        size = self.buffer_rows or ctx.view.replay_rows(self.ratio)
        inputs = {"reservoir": [record.rows.hash for record in ctx.earlier], "rows": size, "seed": seed}
        artefact = ctx.store.artefact("rows", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                readers = [RowReader(record.rows) for record in ctx.earlier]
                chosen = reservoir(sum(map(len, readers)), size, seed)
                document = 0
                for shard, first in enumerate(range(0, len(chosen), SHARD_ROWS)):
                    rows, document = _renumbered(_take(readers, chosen[first : first + SHARD_ROWS]), document)
                    writer.put(shard, rows_table(rows), **row_facts(rows))
                writer.finish(documents=document, dropped=0, cut=0, rows_of=inputs["reservoir"])
        return artefact


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
