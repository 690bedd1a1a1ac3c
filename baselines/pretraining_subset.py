"""Replay of real text of the kind that the model was pretrained on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from continual.contract.mitigation import Context, Mitigation, ModelRef, Stream
from continual.contract.registry import LOSSES
from continual.contract.source import Source, SourceItem

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact


class PretrainingSubset(Mitigation):
    """A share of pretraining text, with the next-token loss or with the KL to the model before the stage.

    What context-free samples stand in for. On text that the model would not have written, `nll` pulls it towards that
    text, while `kl` is still least at the teacher.
    """

    source: ClassVar[str] = "baseline of 2505.13811 and 2605.26097"

    type: Literal["pretraining_subset"] = "pretraining_subset"
    data: SourceItem = Field(description="the text: a source as in `stages.data`; its `limit` sizes the subset")
    loss: Literal["nll", "kl"] = Field("nll", description="next-token loss, or forward KL to `model`")
    teacher: Literal["live", "cached"] = Field(
        "live", description="kl: a frozen model beside the trained one, or its stored top-k (a lower bound of the KL)"
    )
    teacher_top_k: int = Field(64, ge=1, description="cached: tokens kept per position; the others share one bucket")
    model: Literal["stage_start", "start"] = Field("stage_start", description="kl: the teacher")
    weight: float = Field(1.0, ge=0, description="multiplies the replay component")
    share: float = Field(0.25, gt=0, description="replay tokens per task token in every optimizer step")
    held_out: int = Field(8, ge=0, description="rows that are never trained on and measure drift (kl)")

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        if self.teacher == "cached" and self.loss == "nll":
            return "`loss: nll` has no teacher to cache; leave out `teacher` or write `loss: kl`"
        return None

    def sources(self) -> Mapping[str, Source]:
        return {"data": self.data}

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        rows = ctx.read(self.data)
        if self.loss == "nll" or self.teacher == "live":
            return {"rows": rows}
        return {"rows": rows, "teacher": ctx.score(self._teacher(ctx), rows, what="topk", top_k=self.teacher_top_k)}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        loss, cached = LOSSES.load(self.loss), artefacts.get("teacher")
        return [
            Stream(
                name=self.label,
                rows=artefacts["rows"],
                loss=loss.cached() if cached else loss(),
                teacher=self._teacher(ctx) if loss.teacher and not cached else None,
                columns=cached,
                coefficient=self.weight,
                ratio=self.share,
                held_out=self.held_out if loss.teacher else 0,
            )
        ]

    def _teacher(self, ctx: Context) -> ModelRef:
        return ctx.stage_start if self.model == "stage_start" else ctx.start
