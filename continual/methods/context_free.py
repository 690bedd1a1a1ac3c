"""Context-free replay: rehearse what the model itself says after nothing but its start token."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from continual.contract.mitigation import Context, Mitigation, ModelRef, Stream
from continual.contract.registry import LOSSES
from continual.methods.drift_budget import START_WEIGHT, dual_step

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact

HELD_OUT_TOKENS = 8192
"""Enough for a drift of 0.01 nats per token to be told from sampling noise; what `weight: auto` measures on."""


class ContextFree(Mitigation):
    """Replay of unconditional samples, with the next-token loss or with the KL to the model that made them.

    L = NLL(task) + weight x R, with R = -log p(x) (`nll`, Bansal & Sanghavi 2025, 2505.13811) or
    R = KL(teacher || model) per position (`kl`, Marek et al. 2026, 2605.26097), x sampled by the teacher.

    With a cached teacher no frozen model is in the workers' memory: one pass over the samples stores its k likeliest
    tokens per position, and all others count as one class. Merging classes makes the loss, and the drift that is
    measured with it, a lower bound of the KL; k = the vocabulary gives the KL itself.

    With `weight: auto` the weight is what keeps the drift on held-out samples within `drift_budget`, the smallest that
    does (see `continual.methods.drift_budget`).
    """

    source: ClassVar[str] = "Bansal & Sanghavi 2025 (2505.13811); Marek et al. 2026 (2605.26097)"

    type: Literal["context_free"] = "context_free"
    loss: Literal["nll", "kl"] = Field("kl", description="next-token loss, or forward KL to the sampled model")
    teacher: Literal["live", "cached"] = Field(
        "live", description="kl: a frozen model beside the trained one, or its stored top-k (a lower bound of the KL)"
    )
    teacher_top_k: int = Field(64, ge=1, description="cached: tokens kept per position; the others share one bucket")
    weight: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        1.0, description="multiplies the replay component; auto: follows `drift_budget`"
    )
    drift_budget: float | None = Field(None, gt=0, description="auto: largest drift, nats per held-out token")
    adjust_every: int = Field(10, ge=1, description="auto: steps between two measurements of drift")
    adjust_rate: float = Field(0.3, gt=0, le=1, description="auto: exponent of a dual step")
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
    held_out: int | None = Field(
        None, ge=0, description="rows that are never trained on and measure drift (kl); null: 8, auto: 8,192 tokens"
    )

    @property
    def control_every(self) -> int:
        return self.adjust_every if self.weight == "auto" else 0

    @model_validator(mode="after")
    def _budget(self) -> "ContextFree":
        if (self.weight == "auto") != (self.drift_budget is not None):
            raise ValueError("`weight: auto` and `drift_budget` go together; give both, or a number as `weight`")
        return self

    def active(self, sequence: "Sequence", stage: int) -> bool:
        first = self.from_stage or (2 if sequence.model.type == "python" else 1)
        starts = self.start != "tasks" or any(s.start_token for s in sequence.stages[: stage - 1])
        return stage >= first and starts

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        if self.sample_tokens and self.sample_tokens > sequence.train.row_tokens:
            return f"`sample_tokens` {self.sample_tokens} does not fit a row of {sequence.train.row_tokens} tokens"
        if self.teacher == "cached" and self.loss == "nll":
            return "`loss: nll` has no teacher to cache; leave out `teacher` or write `loss: kl`"
        if self.weight != "auto":
            return None
        if self.loss == "nll" or self.held_out == 0:
            return "`weight: auto` follows the KL on held-out rows; write `loss: kl` and leave out `held_out: 0`"
        if any(getattr(other, "weight", None) == "auto" for other in others):
            return "two `weight: auto` would follow each other's drift; give one of them a number"
        return None

    def held_out_rows(self, sequence: "Sequence") -> int:
        """Rows kept from training, to measure drift on; none with `nll`, which has no teacher."""
        if self.loss == "nll":
            return 0
        if self.held_out is not None:
            return self.held_out
        return -(-HELD_OUT_TOKENS // sequence.train.row_tokens) if self.weight == "auto" else 8

    def count(self, sequence: "Sequence", stage: int, steps: int | None = None) -> int:
        """Samples to make: `rows`, or one per replay row of the stage and the held-out ones."""
        steps = steps or sequence.stages[stage - 1].steps or 1000
        rows = round(self.share * sequence.train.batch_rows) * steps
        return self.rows or rows + self.held_out_rows(sequence)

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
        loss, cached = LOSSES.load(self.loss), artefacts.get("teacher")
        return [
            Stream(
                name=self.label,
                rows=artefacts["rows"],
                loss=loss.cached() if cached else loss(),
                teacher=self._teacher(ctx) if loss.teacher and not cached else None,
                columns=cached,
                coefficient=START_WEIGHT if self.weight == "auto" else self.weight,
                ratio=self.share,
                held_out=self.held_out_rows(ctx.sequence),
            )
        ]

    def control(self, state: dict[str, Any], measured: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
        if self.drift_budget is None:
            return state, {}
        before = state.get("weight", START_WEIGHT)
        weight = dual_step(before, measured[f"drift/{self.label}"], self.drift_budget, self.adjust_rate)
        return {"weight": weight}, {self.label: weight}

    def _teacher(self, ctx: Context) -> ModelRef:
        return ctx.stage_start if self.model == "stage_start" else ctx.start
