"""Replay of real rows of the tasks learned before: the classic reference."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.contract.mitigation import Context, Mitigation, Stream
from continual.contract.registry import LOSSES
from continual.data.packing import Arrays
from continual.data.rows import ROW_COLUMNS, RowReader, row_facts, rows_table
from continual.store import digest

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact

SHARD_ROWS = 2048


def reservoir(total: int, size: int, seed: int) -> np.ndarray:
    """Numbers of the rows that a reservoir of `size` holds after `total` rows went by, in random order; int64.

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


class TaskReplay(Mitigation):
    """Next-token loss on a uniform sample of the rows that earlier stages trained on.

    It needs the earlier tasks' data, which the other methods do without. The sample is a seeded reservoir over the
    rows of all earlier stages, so a task with more rows is rehearsed more.
    """

    source: ClassVar[str] = "experience replay; Chaudhry et al. 2019 (1902.10486); reservoir: Vitter 1985"

    type: Literal["task_replay"] = "task_replay"
    weight: float = Field(1.0, ge=0, description="multiplies the replay component")
    share: float = Field(0.25, gt=0, description="replay tokens per task token in every optimizer step")
    rows: int | None = Field(None, ge=1, description="rows kept of all earlier stages; null: as many as the stage uses")
    seed: int | None = Field(None, ge=0, description="of the sample; null: the sequence's")

    def active(self, sequence: "Sequence", stage: int) -> bool:
        return stage > 1

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        seed = ctx.seed if self.seed is None else self.seed
        size = self.rows or round(self.share * ctx.sequence.train.batch_rows) * ctx.steps
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
        return {"rows": artefact}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        return [Stream(self.label, artefacts["rows"], LOSSES.load("nll")(), coefficient=self.weight, ratio=self.share)]


def _take(readers: list[RowReader], numbers: np.ndarray) -> Arrays:
    """Rows by their number in all readers' rows one after another."""
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
    """The rows with their documents numbered from `first` on, and the next number: stages share numbers."""
    real = rows["documents"] >= 0
    begins = (real & (rows["positions"] == 0)).reshape(-1)
    numbers = (first - 1 + np.cumsum(begins)).reshape(real.shape)
    return {**rows, "documents": np.where(real, numbers, -1).astype(np.int32)}, first + int(begins.sum())
