"""FLOW: the task's own rows, those that the model already does well weighted most."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal, NamedTuple

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
    Writer,
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
                import ray

                task = ray.remote(weigh).options(num_cpus=0.5)
                with writer.files() as folder:
                    found = ray.get(task.remote(writer, ctx.task_rows, nll, self.per, self.normalise, str(folder)))
                tau, scale, losses = found
                if tau <= 0.0:
                    problem = (
                        f"the median loss of the model before this stage is 0 over {losses} losses: nothing to rank"
                    )
                    raise ConfigurationError(f"mitigation ({self.label})", problem, "leave it out in this stage")
                writer.finish(tau=tau, scale=scale)
        return {"weights": artefact}

    def token_weights(self, ctx: Context, artefacts: dict[str, Artefact]) -> Artefact:
        return artefacts["weights"]


def weigh(
    writer: Writer, rows: Artefact, nll: Artefact, per: str, normalise: str, folder: str
) -> tuple[float, float, int]:
    """Write the weights of all rows; return tau, what weights are multiplied by, and the number of losses.

    Nothing is written where tau, the exact median in nats, is 0: every weight would be 0 or undefined. Of the losses of
    all tokens, memory holds those of a shard: all of them are in files, in a folder that is deleted.
    """

    def shards() -> Iterator[Losses]:
        yield from (losses_of(*pair, per) for pair in zip(rows.tables(), nll.tables(), strict=True))

    with TemporaryDirectory(dir=folder) as place:
        known = on_disk(Path(place) / "losses", (found.losses[np.isfinite(found.losses)] for found in shards()))
        tau = float(np.median(known, overwrite_input=True)) if len(known) else 0.0
        del known
        count, tokens = (
            sum(values) for values in zip(*((len(f.losses), f.tokens.sum()) for f in shards()), strict=True)
        )
        if tau <= 0.0:
            return 0.0, 1.0, count
        scale = 1.0
        if normalise == "mean":
            # Summed as one array, so that the last digit does not depend on the shards.
            parts = (easy_weights(found.losses, tau) * found.tokens for found in shards())
            scale = 1.0 / float(on_disk(Path(place) / "weights", parts).sum() / tokens)
    for shard, found in enumerate(shards()):
        weights = np.zeros(found.trained.shape, np.float32)
        weights[found.trained] = (easy_weights(found.losses, tau) * scale)[found.place]
        writer.put(shard, pa.table({"weights": fixed_column(weights)}))
    return tau, scale, count


class Losses(NamedTuple):
    """A shard's losses [n] in nats, the tokens [n] of each, trained tokens' places in them, and their mask."""

    losses: np.ndarray
    tokens: np.ndarray
    place: np.ndarray
    trained: np.ndarray


def losses_of(rows: pa.Table, columns: pa.Table, per: str) -> Losses:
    """Return the losses of a shard's documents, which lie in one row whole, or of its tokens."""
    arrays: Arrays = {name: column(rows, name) for name in ROW_COLUMNS}
    trained = arrays["weights"] > 0
    values = column(columns, "nll")[trained].astype(np.float64)
    if per == "token":
        return Losses(values, np.ones(len(values)), np.arange(len(values)), trained)
    _, place = np.unique(arrays["documents"][trained], return_inverse=True)
    tokens = np.bincount(place).astype(np.float64)
    return Losses(np.bincount(place, weights=values) / tokens, tokens, place, trained)


def on_disk(file: Path, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return float64 arrays one after another as one whose content is that of a file: memory need not hold it."""
    with file.open("wb") as out:
        for part in parts:
            part.tofile(out)
    return np.memmap(file, np.float64, "r+") if file.stat().st_size else np.zeros(0)
