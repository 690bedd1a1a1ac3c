"""Replay of real rows of the tasks learned before: the classic reference."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from baselines.chosen import write_chosen
from continual.api import Artefact, Context, Replay, RowReader, StageView, digest


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
                write_chosen(writer, readers, chosen)
        return artefact
