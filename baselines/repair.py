"""Walk back from the weights after a stage until the model has not drifted too far from the one before it."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from baselines.weight_average import also_chooses, averaged
from continual.api import (
    ROW_COLUMNS,
    Artefact,
    Candidate,
    Context,
    Mitigation,
    ModelRef,
    SampleRequest,
    StageView,
    column,
    digest,
)

STEPS = tuple(step / 10 for step in range(10, 0, -1))


class Repair(Mitigation):
    """The model that continues is (1 - alpha) x before + alpha x after, with the largest alpha within `drift_budget`.

    Drift is the forward KL from the model before the stage, in nats per token, estimated on samples that it makes from
    its start token alone, so that no old data is needed: the mean of log p_before(x) - log p_alpha(x), x sampled by
    p_before. Alphas are tried from the largest down. If none is within the budget, the stage is undone. What was
    measured at each is printed, and kept in the store.
    """

    reference: ClassVar[str] = "average: WiSE-FT, Wortsman et al. 2022 (2109.01903); alpha by drift on samples"

    type: Literal["repair"] = "repair"
    drift_budget: float = Field(gt=0, description="largest drift, nats per token")
    alphas: tuple[float, ...] = Field(STEPS, min_length=1, description="shares of the weights after the stage")
    samples: int = Field(256, ge=2, description="samples that drift is measured on")
    start: Literal["bos", "template", "tasks"] = Field("bos", description="what a sample begins with")
    seed: int | None = Field(None, ge=0, description="of the samples, which no replay shares; null: the sequence's")
    from_stage: int | None = Field(None, ge=1, description="first stage; null: 2 after random weights, else 1")

    def active(self, view: StageView) -> bool:
        return view.has_reached(self.from_stage) and (self.start != "tasks" or bool(view.start_tokens))

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if bad := [alpha for alpha in self.alphas if not 0 < alpha <= 1]:
            return f"`alphas` has {bad[0]:g}; write shares above 0, up to 1"
        return also_chooses(view, others)

    def sample_start(self) -> str:
        return self.start

    def sampled_tokens(self, view: StageView) -> int:
        return self.samples * view.row_tokens

    def prepare(self, ctx: Context) -> dict[str, Artefact]:
        return {"rows": self._rows(ctx)}

    def after_training(self, ctx: Context, trained: ModelRef) -> list[Candidate]:
        rows = self._rows(ctx)
        before = ctx.score(ctx.stage_start, rows)
        curve: list[dict[str, float]] = []
        chosen, share = ctx.stage_start, 0.0
        for alpha in sorted(set(self.alphas), reverse=True):
            model = trained if alpha == 1 else averaged(ctx, ctx.stage_start, trained, alpha)
            mean, stderr = drift(rows, before, ctx.score(model, rows))
            curve.append({"alpha": alpha, "drift": mean, "stderr": stderr})
            if mean <= self.drift_budget:
                chosen, share = model, alpha
                break
        self._keep(ctx, rows, trained, curve)
        with ctx.step(self.label) as step:
            measured = ", ".join(f"{each['alpha']:g}: {each['drift']:.3g} ±{each['stderr']:.1g}" for each in curve)
            undone = "" if share else "; none is within the budget, so the stage is undone"
            step.note(f"drift by alpha {measured}{undone}")
        return [Candidate(f"{self.label} {share:g}", chosen)]

    def _rows(self, ctx: Context) -> Artefact:
        view = ctx.view
        # Take a seed of its own: drift on samples that were replayed, and so trained on, would be too small.
        seed = int(digest(["repair", view.seed if self.seed is None else self.seed]), 16) % (1 << 31)
        return ctx.sample(
            SampleRequest(
                ctx.stage_start, count=self.samples, start=self.start, start_tokens=view.start_tokens, seed=seed
            )
        )

    def _keep(self, ctx: Context, rows: Artefact, trained: ModelRef, curve: list[dict[str, float]]) -> None:
        """Store the curve, by what it was measured on."""
        inputs: dict[str, Any] = {"drift_of": [ctx.stage_start.hash, trained.hash], "rows": rows.hash}
        inputs |= {"alphas": list(self.alphas), "budget": self.drift_budget}
        artefact = ctx.store.artefact("curves", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                writer.finish(curve=curve)


def drift(rows: Artefact, before: Artefact, after: Artefact) -> tuple[float, float]:
    """Return the mean of nats after minus before per token, and its standard error with documents as units.

    Args:
        rows: Samples of the model before.
        before: Their column `nll` under that model.
        after: The same under another one.
    """
    documents, tokens, nats = _by_document(zip(rows.tables(), before.tables(), after.tables(), strict=True))
    mean = float(nats.sum() / tokens.sum())
    count = len(documents)
    squares = float(np.sum((nats - mean * tokens) ** 2))
    return mean, math.sqrt(count / (count - 1) * squares) / float(tokens.sum()) if count > 1 else math.inf


def _by_document(shards: Iterable[tuple[object, object, object]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return documents [D], their tokens [D], and the sum of nats after minus before [D]."""
    numbers, losses = [], []
    for table, before, after in shards:
        arrays = {name: column(table, name) for name in ROW_COLUMNS}
        scored = arrays["weights"] > 0
        numbers.append(arrays["documents"][scored])
        losses.append(column(after, "nll")[scored].astype(np.float64) - column(before, "nll")[scored])
    documents, place = np.unique(np.concatenate(numbers), return_inverse=True)
    return documents, np.bincount(place).astype(np.float64), np.bincount(place, weights=np.concatenate(losses))
