"""Context-free replay: rehearse what the model itself says after nothing but its start token."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from continual.api import (
    Artefact,
    Context,
    LossName,
    Mitigation,
    ModelRef,
    SampleRequest,
    StageView,
    TeacherReplay,
    most_filled,
)
from continual.methods.drift_budget import START_WEIGHT, dual_step

HELD_OUT_TOKENS = 8192
"""Enough to tell a drift of 0.01 nats per token from sampling noise; what `weight: auto` measures on."""

BFLOAT16_DRIFT = 1e-3
"""Nats per token. Under bfloat16, weights that differ by 1e-6 show a KL of 4.6e-4, where it is 5.9e-9 in float32."""


class ContextFree(TeacherReplay):
    """Replay of unconditional samples, with the next-token loss or with the KL to the model that made them.

    L = NLL(task) + weight x R, with R = -log p(x) (`nll`, Bansal & Sanghavi 2025, 2505.13811) or
    R = KL(teacher || model) per position (`kl`, Marek et al. 2026, 2605.26097), x sampled by the teacher.

    With a cached teacher the workers hold no frozen model: one pass over the samples stores its k likeliest tokens per
    position, and all others count as one class. Merging classes makes the loss, and the drift that is measured with
    it, a lower bound of the KL; k = the vocabulary gives the KL itself.

    With `weight: auto` the weight is the smallest that keeps the drift on held-out samples within `drift_budget` (see
    `continual.methods.drift_budget`).
    """

    reference: ClassVar[str] = "Bansal & Sanghavi 2025 (2505.13811); Marek et al. 2026 (2605.26097)"
    renamed: ClassVar[dict[str, str]] = {"share": "ratio", "rows": "samples"}

    type: Literal["context_free"] = "context_free"
    loss: LossName = Field("kl", description="next-token loss (nll), or forward KL to the sampled model (kl)")
    weight: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(  # type: ignore[assignment]
        1.0, description="multiplies the replay component; auto: follows `drift_budget`"
    )
    drift_budget: float | None = Field(None, gt=0, description="auto: largest drift, nats per held-out token")
    adjust_every: int = Field(10, ge=1, description="auto: steps between two measurements of drift")
    adjust_rate: float = Field(0.3, gt=0, le=1, description="auto: exponent of a dual step")
    start: Literal["bos", "template", "tasks"] = Field("bos", description="what a sample begins with")
    model: Literal["stage_start", "start"] = Field("stage_start", description="whose samples")
    temperature: float = Field(1.0, gt=0, description="1: unbiased")
    top_p: float = Field(1.0, gt=0, le=1, description="1: off")
    top_k: int = Field(0, ge=0, description="0: off")
    samples: int | None = Field(
        None, ge=1, description="samples; null: as many as fill the stage's replay rows, so that none is repeated"
    )
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

    def active(self, view: StageView) -> bool:
        return view.has_reached(self.from_stage) and (self.start != "tasks" or bool(view.start_tokens))

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if self.sample_tokens and self.sample_tokens > view.row_tokens:
            return f"`sample_tokens` {self.sample_tokens} does not fit a row of {view.row_tokens} tokens"
        if self.samples and self.samples <= (held_out := self.held_out_rows(view)):
            return (
                f"`samples` {self.samples} leaves nothing beside {held_out} held-out rows; write more of them, or null"
            )
        if self.weight == "auto":
            if not self.loss_type.teacher or self.held_out == 0:
                return "`weight: auto` follows the KL on held-out rows; write `loss: kl` and leave out `held_out: 0`"
            if "bfloat16" in self.dtypes(view) and (self.drift_budget or 0.0) < BFLOAT16_DRIFT:
                problem = f"`drift_budget` {self.drift_budget:g} is below what bfloat16 resolves"
                finer = "`train.precision: float32`" if view.precision == "bfloat16" else "`teacher: live`"
                return f"{problem}; write {BFLOAT16_DRIFT:g} at least, or {finer}"
            if any(isinstance(other, ContextFree) and other.weight == "auto" for other in others):
                return "two `weight: auto` would follow each other's drift; give one of them a number"
        return super().check(view, others)

    def held_out_rows(self, view: StageView) -> int:
        if not self.loss_type.teacher or self.held_out is not None:
            return super().held_out_rows(view)
        return -(-HELD_OUT_TOKENS // view.row_tokens) if self.weight == "auto" else 8

    def sample_start(self) -> str:
        return self.start

    def sampled_tokens(self, view: StageView) -> int:
        return self._request(view, ModelRef("", "")).resolved(view).tokens

    def scores_samples(self, view: StageView) -> bool:
        return self.teacher == "cached"

    def most_rows(self, view: StageView) -> int | None:
        return most_filled(self.samples, self.held_out_rows(view)) if self.samples else None

    def rows(self, ctx: Context) -> Artefact:
        return ctx.sample(self._request(ctx.view, self.frozen_model(ctx)))

    def _request(self, view: StageView, model: ModelRef) -> SampleRequest:
        return SampleRequest(
            model,
            count=self.samples,
            rows=None if self.samples else view.replay_rows(self.ratio),
            held_out=self.held_out_rows(view),
            start=self.start,
            start_tokens=view.start_tokens,
            max_tokens=self.sample_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            run_on=self.run_on,
            seed=self.seed,
            step_rows=view.replay_step(self.ratio),
        )

    def coefficient(self) -> float:
        return START_WEIGHT if self.weight == "auto" else self.weight

    def control(self, state: dict[str, Any], measured: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
        if self.drift_budget is None:
            return state, {}
        before = state.get("weight", START_WEIGHT)
        weight = dual_step(before, measured[f"drift/{self.label}"], self.drift_budget, self.adjust_rate)
        return {"weight": weight}, {self.label: weight}
