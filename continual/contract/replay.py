"""Base classes of the mitigations that replay rows in every batch."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from continual.contract.context import Context
from continual.contract.loss import Loss, LossName
from continual.contract.mitigation import Mitigation
from continual.contract.models import ModelRef
from continual.contract.registry import LOSSES
from continual.contract.stream import Stream
from continual.contract.view import StageView

if TYPE_CHECKING:
    from continual.store import Artefact


LossType = type[Loss]


class Replay(Mitigation):
    """Replay of some rows with the next-token loss: implement `rows`."""

    renamed: ClassVar[dict[str, str]] = {"share": "ratio"}

    weight: float = Field(1.0, ge=0, description="multiplies the replay component")
    ratio: float = Field(0.25, gt=0, le=1000, description="replay tokens per task token in every optimizer step")

    @abstractmethod
    def rows(self, ctx: Context) -> "Artefact":
        """Return the rows artefact to replay, made or found in the store."""

    def replay_ratio(self) -> float:
        return self.ratio

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        return {"rows": self.rows(ctx)}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        loss = LOSSES.load("nll")()
        return [Stream(self.label, artefacts["rows"], loss, coefficient=self.weight, ratio=self.ratio)]


class TeacherReplay(Replay):
    """Replay of some rows with a choice of loss, against a frozen model where the loss needs one."""

    loss: LossName = Field("nll", description="next-token loss (nll), or forward KL to `model` (kl)")
    model: Literal["stage_start", "start"] = Field("stage_start", description="the frozen model")
    teacher: Literal["live", "cached"] = Field(
        "live", description="kl: a frozen model in the workers, or its stored top-k (a lower bound of the KL)"
    )
    teacher_top_k: int = Field(64, ge=1, description="cached: tokens kept per position; the others share one bucket")
    held_out: int | None = Field(
        8, ge=0, description="rows that are never trained on and measure drift, with a loss against a frozen model"
    )

    @property
    def loss_type(self) -> "LossType":
        """The loss as named, before a cached teacher replaces the live one."""
        loss: LossType = LOSSES.load(self.loss)
        return loss

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if self.teacher == "cached" and self.loss_type.cached is None:
            return f"`loss: {self.loss}` has no teacher to cache; leave out `teacher` or write `loss: kl`"
        return None

    def frozen_model(self, ctx: Context) -> ModelRef:
        """Return the model that `model` names."""
        return ctx.start if self.model == "start" else ctx.stage_start

    def held_out_rows(self, view: StageView) -> int:
        """Return the rows to keep from training to measure drift on: none without a teacher.

        No more than half of the rows are kept, whatever is wanted.
        """
        return (self.held_out or 0) if self.loss_type.teacher else 0

    def frozen_models(self, view: StageView) -> set[str]:
        return {self.model} if self.loss_type.teacher and self.teacher == "live" else set()

    def needs_first(self, view: StageView) -> str | None:
        if self.teacher == "live" or self.scores_samples(view):
            return None
        return "its teacher scores all rows before"

    def dtypes(self, view: StageView) -> set[str]:
        """Return the dtypes in which the models of a drift compute: the trained one, and the teacher."""
        return {view.precision, view.dtype} if self.teacher == "cached" else {view.precision}

    def coefficient(self) -> float:
        """Return what the stream's loss is multiplied by at first."""
        return self.weight

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        rows = self.rows(ctx)
        if self.teacher == "live":
            return {"rows": rows}
        teacher = ctx.score(
            self.frozen_model(ctx),
            rows,
            what="topk",
            top_k=self.teacher_top_k,
            while_training=self.scores_samples(ctx.view),
        )
        return {"rows": rows, "teacher": teacher}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        loss, cached, rows = self.loss_type, artefacts.get("teacher"), artefacts["rows"]
        wanted = self.held_out_rows(ctx.view)
        # Rows of samples were laid out for replay: in random order, those held out first. Others are drawn from here.
        first = rows.shard_facts(0) or {}
        laid_out = "held_out" in first
        held_out = first["held_out"] if laid_out else min(wanted, rows.manifest()["counts"]["rows"] // 2)
        if held_out < wanted:
            with ctx.step("rows held out") as step:
                half = f"half of {rows.manifest()['counts']['rows']} rows" if rows.complete else "half of the rows"
                step.note(f"{held_out} instead of {wanted}: no more than {half} are kept from training")
        return [
            Stream(
                name=self.label,
                rows=rows,
                loss=loss.cached() if cached is not None and loss.cached else loss(),
                teacher=self.frozen_model(ctx) if loss.teacher and cached is None else None,
                columns=cached,
                coefficient=self.coefficient(),
                ratio=self.ratio,
                held_out=held_out,
                shuffle=not laid_out,
            )
        ]
