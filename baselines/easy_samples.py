"""FLOW: the task's own rows, those that the model already does well weighted most."""

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from continual.api import (
    ROW_COLUMNS,
    Arrays,
    Artefact,
    ConfigurationError,
    Context,
    Mitigation,
    StageView,
    column,
    fixed_column,
)

LEAST = float(np.finfo(np.float32).tiny)
"""A weight that is a number never becomes 0: the loss is divided by the number of tokens, the hardest included."""


def easy_weights(losses: np.ndarray, tau: float) -> np.ndarray:
    """w = exp(-f / tau), float64 in (0, 1]; 0 where the loss f is no finite number (as in the paper's code)."""
    return np.where(np.isfinite(losses), np.maximum(np.exp(-losses / tau), LEAST), 0.0)


class EasySamples(Mitigation):
    """Weights exp(-f / tau) on the task's rows: f the loss before the stage, tau its median over the whole set.

    f is a document's mean nats per trained token under the stage-start model (`per: sample`), or each token's own
    (`per: token`). The weights are made once and never change. The component stays sum(w x nll) / tokens, as
    published, so `normalise: none` shrinks the task's loss by about e: with clipping or replay, `mean` keeps
    the balance. Other methods' weights on the same rows multiply.
    """

    reference: ClassVar[str] = "FLOW, Sanyal et al. 2025 (2502.02797), equation for w_i"

    type: Literal["easy_samples"] = "easy_samples"
    per: Literal["sample", "token"] = Field("sample", description="one weight per document, or per token")
    normalise: Literal["none", "mean"] = Field(
        "none", description="none: as published; mean: divided by the mean weight over the set's trained tokens"
    )

    def needs_first(self, view: StageView) -> str | None:
        return "its weights need the median of all losses"

    def prepare(self, ctx: Context) -> dict[str, Artefact]:
        nll = ctx.score(ctx.stage_start, ctx.task_rows, what="nll")
        inputs = {"weights": "easy_samples", "per": self.per, "normalise": self.normalise, "nll": nll.hash}
        artefact = ctx.store.artefact("columns", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                tau, scale = self._tau(ctx.task_rows, nll)
                pairs = zip(ctx.task_rows.tables(), nll.tables(), strict=True)
                for shard, (rows, columns) in enumerate(pairs):
                    found, _, place, trained = self._losses(rows, columns)
                    weights = np.zeros(trained.shape, np.float32)
                    weights[trained] = (easy_weights(found, tau) * scale)[place]
                    writer.put(shard, pa.table({"weights": fixed_column(weights)}))
                writer.finish(tau=tau, scale=scale)
        return {"weights": artefact}

    def token_weights(self, ctx: Context, artefacts: dict[str, Artefact]) -> Artefact:
        return artefacts["weights"]

    def _tau(self, rows: Artefact, nll: Artefact) -> tuple[float, float]:
        """Return the exact median in nats, and what the weights are multiplied by.

        Raises ConfigurationError when the median is 0: every weight would be 0 or undefined.
        """
        parts = [self._losses(*pair)[:2] for pair in zip(rows.tables(), nll.tables(), strict=True)]
        losses, tokens = (np.concatenate(values) for values in zip(*parts, strict=True))
        known = losses[np.isfinite(losses)]
        tau = float(np.median(known)) if len(known) else 0.0
        if tau <= 0.0:
            problem = f"the median loss of the model before this stage is 0 over {len(losses)} losses: nothing to rank"
            raise ConfigurationError(f"mitigation ({self.label})", problem, "leave it out in this stage")
        mean = float((easy_weights(losses, tau) * tokens).sum() / tokens.sum())
        return tau, 1.0 / mean if self.normalise == "mean" else 1.0

    def _losses(self, rows: pa.Table, columns: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return a shard's losses [n] in nats, their tokens [n], the place of each trained token in them, and the mask.

        A document lies in one row whole, so a shard knows its documents' losses.
        """
        arrays: Arrays = {name: column(rows, name) for name in ROW_COLUMNS}
        trained = arrays["weights"] > 0
        values = column(columns, "nll")[trained].astype(np.float64)
        if self.per == "token":
            return values, np.ones(len(values)), np.arange(len(values)), trained
        _, place = np.unique(arrays["documents"][trained], return_inverse=True)
        tokens = np.bincount(place).astype(np.float64)
        return np.bincount(place, weights=values) / tokens, tokens, place, trained
