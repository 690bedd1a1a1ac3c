"""Replay of real text of the kind that the model was pretrained on."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from continual.api import Artefact, Context, Source, SourceItem, TeacherReplay


class PretrainingSubset(TeacherReplay):
    """Replay of pretraining text, with the next-token loss or with the KL to the model before the stage.

    Context-free samples stand in for this text. On text that the model would not have written, `nll` moves the model
    towards that text, while `kl` is still lowest at the teacher.
    """

    reference: ClassVar[str] = "baseline of 2505.13811 and 2605.26097"

    type: Literal["pretraining_subset"] = "pretraining_subset"
    data: SourceItem = Field(description="the text: a source as in `stages.data`; its `limit` sizes the subset")
    model: Literal["stage_start", "start"] = Field("stage_start", description="kl: the teacher")

    def data_sources(self) -> Mapping[str, Source]:
        return {"data": self.data}

    def rows(self, ctx: Context) -> Artefact:
        return ctx.read(self.data)
