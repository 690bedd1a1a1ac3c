"""Context-free replay: rehearse what the model itself says after nothing but its start token."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from continual.mitigation import Context, Mitigation, ModelRef, Stream

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact


class ContextFree(Mitigation):
    """Replay of unconditional samples, with the next-token loss or with the KL to the model that made them.

    L = NLL(task) + weight x R, with R = -log p(x) (`nll`, Bansal & Sanghavi 2025, 2505.13811) or
    R = KL(teacher || model) per position (`kl`, Marek et al. 2026, 2605.26097), x sampled by the teacher.

    With a cached teacher no frozen model is in the workers' memory: one pass over the samples stores its k likeliest
    tokens per position, and all others count as one class. Merging classes makes the loss, and the drift that is
    measured with it, a lower bound of the KL; k = the vocabulary gives the KL itself.
    """

    source: ClassVar[str] = "Bansal & Sanghavi 2025 (2505.13811); Marek et al. 2026 (2605.26097)"

    type: Literal["context_free"] = "context_free"
    loss: Literal["nll", "kl"] = Field("kl", description="next-token loss, or forward KL to the sampled model")
    teacher: Literal["live", "cached"] = Field(
        "live", description="kl: a frozen model beside the trained one, or its stored top-k (a lower bound of the KL)"
    )
    teacher_top_k: int = Field(64, ge=1, description="cached: tokens kept per position; the others share one bucket")
    weight: float = Field(1.0, ge=0, description="multiplies the replay component")
    share: float = Field(0.25, gt=0, description="replay tokens per task token in every optimizer step")
    start: Literal["bos", "template", "tasks"] = Field("bos", description="what a sample begins with")
    model: Literal["stage_start", "start"] = Field("stage_start", description="whose samples")
    temperature: float = Field(1.0, gt=0, description="1: unbiased")
    top_p: float = Field(1.0, gt=0, le=1, description="1: off")
    top_k: int = Field(0, ge=0, description="0: off")
    rows: int | None = Field(None, ge=1, description="samples; null: enough for the stage without repetition")
    sample_tokens: int | None = Field(None, ge=2, description="longest sample, start included; null: a row")
    run_on: bool = Field(False, description="ignore end-of-text: every sample has the full length")
    seed: int | None = Field(None, ge=0, description="null: the sequence's")
    from_stage: int | None = Field(None, ge=1, description="first stage; null: 2 after random weights, else 1")
    held_out: int = Field(8, ge=0, description="rows that are never trained on and measure drift (kl)")

    def active(self, sequence: "Sequence", stage: int) -> bool:
        first = self.from_stage or (2 if sequence.model.type == "python" else 1)
        starts = self.start != "tasks" or any(s.start_token for s in sequence.stages[: stage - 1])
        return stage >= first and starts

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        if self.sample_tokens and self.sample_tokens > sequence.train.row_tokens:
            return f"`sample_tokens` {self.sample_tokens} does not fit a row of {sequence.train.row_tokens} tokens"
        if self.teacher == "cached" and self.loss == "nll":
            return "`loss: nll` has no teacher to cache; leave out `teacher` or write `loss: kl`"
        return None

    def count(self, sequence: "Sequence", stage: int, steps: int | None = None) -> int:
        """Samples to make: `rows`, or one per replay row of the stage and the held-out ones."""
        steps = steps or sequence.stages[stage - 1].steps or 1000
        return self.rows or round(self.share * sequence.train.batch_rows) * steps + self.held_out

    def samples(self, sequence: "Sequence", stage: int) -> int:
        return self.count(sequence, stage) * (self.sample_tokens or sequence.train.row_tokens)

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        tokens = [record.start_token for record in ctx.earlier if record.start_token]
        settings: dict[str, Any] = self.model_dump(include={"start", "temperature", "top_p", "top_k", "run_on", "seed"})
        rows = ctx.sample(
            self._teacher(ctx),
            count=self.count(ctx.sequence, ctx.stage, ctx.steps),
            tokens=self.sample_tokens,
            start_tokens=tokens,
            **settings,
        )
        if self.loss == "nll" or self.teacher == "live":
            return {"rows": rows}
        return {"rows": rows, "teacher": ctx.score(self._teacher(ctx), rows, what="topk", top_k=self.teacher_top_k)}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        kl = self.loss == "kl"
        return [
            Stream(
                name=self.label,
                rows=artefacts["rows"],
                loss=self.loss,
                teacher=artefacts.get("teacher", self._teacher(ctx)) if kl else None,
                weight=self.weight,
                share=self.share,
                held_out=self.held_out if kl else 0,
            )
        ]

    def _teacher(self, ctx: Context) -> ModelRef:
        return ctx.stage_start if self.model == "stage_start" else ctx.start
