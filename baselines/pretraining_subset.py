"""Replay of real text of the kind that the model was pretrained on."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from baselines.chosen import write_chosen
from continual.api import Artefact, Context, RowReader, Source, SourceItem, StageView, TeacherReplay, digest


class PretrainingSubset(TeacherReplay):
    """Replay of pretraining text, with the next-token loss or with the KL to the model before the stage.

    Context-free samples stand in for this text. On text that the model would not have written, `nll` moves the model
    towards that text, while `kl` is still lowest at the teacher.
    """

    reference: ClassVar[str] = "baseline of 2505.13811 and 2605.26097"
    usual: ClassVar[dict[str, str]] = {"rows": "buffer_rows", "samples": "buffer_rows"}

    type: Literal["pretraining_subset"] = "pretraining_subset"
    data: SourceItem = Field(
        description="the text: a source as in `stages.data`, of which its own `limit` would leave the first documents"
    )
    buffer_rows: int | None = Field(
        None, ge=1, description="rows drawn from the whole text, other ones in each stage; null: all of them"
    )
    seed: int | None = Field(None, ge=0, description="of the draw; null: the sequence's")
    model: Literal["stage_start", "start"] = Field("stage_start", description="kl: the teacher")

    def data_sources(self) -> Mapping[str, Source]:
        return {"data": self.data}

    def most_rows(self, view: StageView) -> int | None:
        size = self.buffer_rows
        return size and size - min(self.held_out_rows(view), size // 2)

    def rows(self, ctx: Context) -> Artefact:
        whole = ctx.read(self.data)
        total, size = whole.manifest()["counts"]["rows"], self.buffer_rows
        if size is None or size >= total:
            return whole
        seed = ctx.view.seed if self.seed is None else self.seed
        inputs = {"subset": whole.hash, "rows": size, "seed": seed, "stage": ctx.view.number}
        artefact = ctx.store.artefact("rows", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                key = int(digest(["subset", seed, ctx.view.number]), 16) % (1 << 64)
                chosen = np.random.Generator(np.random.Philox(key)).permutation(total)[:size]
                write_chosen(writer, [RowReader(whole)], chosen)
        return artefact
