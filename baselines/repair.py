"""Walk back from the weights after a stage until the model has not drifted too far, or lost too much."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from baselines.merge import merged
from baselines.weight_average import also_chooses, averaged
from continual.api import (
    Artefact,
    Candidate,
    Context,
    Mitigation,
    ModelRef,
    SampleRequest,
    StageView,
    Tried,
    Walk,
    as_limits,
    column,
    digest,
    limits_by_name,
    losses_by_document,
    mean_per_token,
)

STEPS = tuple(step / 10 for step in range(10, 0, -1))


class Repair(Mitigation):
    """(1 - alpha) x before + alpha x after the stage, with the largest alpha that drifts and loses no more than it may.

    Drift is the forward KL from the model before the stage, in nats per token, estimated on samples that it makes from
    its start token alone, so that no old data is needed: the mean of log p_before(x) - log p_alpha(x), x sampled by
    p_before. Losses follow the rule of `evaluate.max_forgetting`, after this stage: one is too large if all of its
    95 % interval is above its limit. They need the evaluation's data, and alpha is chosen on the scores that are then
    reported.

    Alphas are tried from the largest down. If none holds, the stage is undone. What was measured at each is printed,
    kept in the store, and in the report.

    With `toward` a merge by PEFT takes the place of the model before the stage: base + merge(task vectors). The base is
    the model before `from_stage`, and the task vector of each stage from there on is the model that it left minus the
    one before it. The merge itself is tried last.
    """

    reference: ClassVar[str] = (
        "average: WiSE-FT, Wortsman et al. 2022 (2109.01903); TIES: Yadav et al. 2023 (2306.01708); "
        "DARE: Yu et al. 2023 (2311.03099)"
    )

    type: Literal["repair"] = "repair"
    drift_budget: float | None = Field(None, gt=0, description="largest drift, nats per token; null: any")
    # What began before there were these keys has none in its configuration.
    max_forgetting: dict[str, float] | None = Field(
        None,
        exclude_if=lambda given: given is None,
        description="largest losses, as in `evaluate.max_forgetting`; null: any",
    )
    toward: Literal["stage_start", "ties", "dare_ties"] = Field(
        "stage_start",
        exclude_if=lambda given: given == "stage_start",
        description="the end of the walk: the model before the stage, or a merge of stages since `from_stage`",
    )
    density: float = Field(
        0.2,
        gt=0,
        lt=1,
        exclude_if=lambda given: given == 0.2,
        description="merges: share of each task vector's values that is kept, the largest (ties) or drawn ones",
    )
    alphas: tuple[float, ...] = Field(STEPS, min_length=1, description="shares of the weights after the stage")
    samples: int = Field(256, ge=2, description="samples that drift is measured on")
    start: Literal["bos", "template", "tasks"] = Field("bos", description="what a sample begins with")
    seed: int | None = Field(
        None, ge=0, description="of the samples, which no replay shares, and of drawn values; null: the sequence's"
    )
    from_stage: int | None = Field(None, ge=1, description="first stage; null: 2 after random weights, else 1")

    @field_validator("max_forgetting", mode="before")
    @classmethod
    def _one_limit(cls, given: Any) -> Any:
        return as_limits(given)

    @model_validator(mode="after")
    def _some_criterion(self) -> "Repair":
        if self.drift_budget is None and not self.max_forgetting:
            raise ValueError("nothing says which alpha holds; give `drift_budget`, `max_forgetting` or both")
        return self

    def active(self, view: StageView) -> bool:
        return view.has_reached(self.from_stage) and (self.sample_start() != "tasks" or bool(view.start_tokens))

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if bad := [alpha for alpha in self.alphas if not 0 < alpha <= 1]:
            return f"`alphas` has {bad[0]:g}; write shares above 0, up to 1"
        return also_chooses(view, others)

    def notes(self) -> list[str]:
        models = len(set(self.alphas)) + (self.toward != "stage_start")
        note = f"up to {models} models are evaluated after a stage, and the scores of the chosen one favor it"
        return [f"{self.label}: {note}"] if self.max_forgetting else []

    def loss_limits(self, view: StageView) -> Mapping[str, float]:
        return self.max_forgetting or {}

    def sample_start(self) -> str | None:
        return None if self.drift_budget is None else self.start

    def sampled_tokens(self, view: StageView) -> int:
        return 0 if self.drift_budget is None else self.samples * view.row_tokens

    def prepare(self, ctx: Context) -> dict[str, Artefact]:
        return {} if self.drift_budget is None else {"rows": self._rows(ctx)}

    def after_training(self, ctx: Context, trained: ModelRef) -> list[Candidate]:
        rows = None if self.drift_budget is None else self._rows(ctx)
        before = None if rows is None else ctx.score(ctx.stage_start, rows)
        tried: list[Tried] = []
        passed: list[Candidate] = []
        chosen, share = ctx.stage_start, None
        for alpha, model in self._path(ctx, trained):
            one = Tried(alpha)
            if rows is not None and before is not None:
                one = Tried(alpha, *drift(rows, before, ctx.score(model, rows)))
            if self.max_forgetting and self._within_budget(one):
                one = replace(one, losses=ctx.losses(model, f"evaluate {self.label} {alpha:g}"))
                passed.append(Candidate(f"{self.label} {alpha:g}", model))
            tried.append(one)
            if self._within_budget(one) and not self._loses_too_much(one):
                chosen, share = model, alpha
                break
        walk = Walk(
            self.toward, tuple(tried), share, self.drift_budget, self._limits, self._keep(ctx, rows, trained, tried)
        )
        self._tell(ctx, walk)
        undone = "0" if self.toward == "stage_start" else "undone"
        first = Candidate(f"{self.label} {undone if share is None else f'{share:g}'}", chosen, walk)
        # What was evaluated on the way has its scores in the summary, too.
        return [first, *(other for other in passed if other.model != chosen)]

    @property
    def _limits(self) -> dict[str, float]:
        return limits_by_name(self.max_forgetting)

    def _within_budget(self, one: Tried) -> bool:
        return self.drift_budget is None or (one.drift is not None and one.drift <= self.drift_budget)

    def _loses_too_much(self, one: Tried) -> bool:
        losses = one.losses or {}
        return any(losses[name].exceeds(limit) for name, limit in self._limits.items() if name in losses)

    def _path(self, ctx: Context, trained: ModelRef) -> Iterator[tuple[float, ModelRef]]:
        """Yield the models of the walk, each made when it is asked for: shares of the trained weights, then a merge."""
        alphas = sorted(set(self.alphas), reverse=True)
        if alphas[0] == 1:
            yield alphas.pop(0), trained
        end = self._end(ctx, trained)
        yield from ((alpha, averaged(ctx, end, trained, alpha)) for alpha in alphas)
        if end != ctx.stage_start:
            yield 0.0, end

    def _end(self, ctx: Context, trained: ModelRef) -> ModelRef:
        if self.toward == "stage_start":
            return ctx.stage_start
        models = [ctx.start, *(stage.model for stage in ctx.earlier), trained]
        since = models[ctx.view.first(self.from_stage) - 1 :]
        return merged(ctx, since, self.toward, self.density, self._seed(ctx, "merge"))

    def _seed(self, ctx: Context, *of: Any) -> int:
        """Return a seed that no replay has: drift on samples that the stage has trained on would be too small."""
        return int(digest(["repair", *of, ctx.view.seed if self.seed is None else self.seed]), 16) % (1 << 31)

    def _rows(self, ctx: Context) -> Artefact:
        view = ctx.view
        return ctx.sample(
            SampleRequest(
                ctx.stage_start,
                count=self.samples,
                start=self.start,
                start_tokens=view.start_tokens,
                seed=self._seed(ctx),
            )
        )

    def _keep(self, ctx: Context, rows: Artefact | None, trained: ModelRef, tried: list[Tried]) -> str:
        """Store the curve, by what it was measured on, and return its address."""
        curve = [one.as_json() for one in tried]
        inputs: dict[str, Any] = {"drift_of": [ctx.stage_start.hash, trained.hash]}
        inputs |= {
            "rows": None if rows is None else rows.hash,
            "alphas": list(self.alphas),
            "budget": self.drift_budget,
        }
        if self.max_forgetting or self.toward != "stage_start":
            # The losses hang on all models before; a merge is known by its hash.
            inputs |= {"limits": self._limits, "toward": self.toward, "curve": curve}
        artefact = ctx.store.artefact("curves", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                writer.finish(curve=curve)
        return artefact.hash

    def _tell(self, ctx: Context, walk: Walk) -> None:
        """Print what was measured at each alpha, and what that led to."""
        with ctx.step(self.label) as step:
            drifts = ", ".join(
                f"{one.alpha:g}: {one.drift:.3g} ±{one.stderr:.1g}" for one in walk.tried if one.drift is not None
            )
            parts = [f"drift by alpha {drifts}"] if drifts else []
            evaluated = [one for one in walk.tried if one.losses is not None]
            for name in walk.limits if evaluated else ():
                lost = ", ".join(f"{one.alpha:g}: {_shown(one, name)}" for one in evaluated)
                parts.append(f"`{name}` by alpha {lost}")
            within = "the budget" if self.drift_budget is not None and not self.max_forgetting else "what is allowed"
            undone = f"none is within {within}, so the stage is undone"
            step.note("; ".join([*parts, *([undone] if walk.alpha is None else [])]))


def _shown(one: Tried, name: str) -> str:
    loss = (one.losses or {}).get(name)
    return "nothing can be lost yet" if loss is None else f"{loss.value:.3g}"


def drift(rows: Artefact, before: Artefact, after: Artefact) -> tuple[float, float]:
    """Return the mean of nats after minus before per token, and its standard error with documents as units.

    The error is infinite for a single document.

    Args:
        rows: Samples of the model before.
        before: Their column `nll` under that model.
        after: The same under another one.
    """
    shards = zip(before.tables(), after.tables(), strict=True)
    rises = (column(later, "nll").astype(np.float64) - column(earlier, "nll") for earlier, later in shards)
    _, nats, tokens = losses_by_document(rows, rises)
    mean, stderr = mean_per_token(nats, tokens)
    return mean, math.inf if stderr is None else stderr
