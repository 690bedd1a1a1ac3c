"""Replay of the upstream documents that a task is expected to make the model forget."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from baselines.upstream import Upstream
from continual.api import (
    COMPLETIONS,
    Artefact,
    ConfigurationError,
    Context,
    Mitigation,
    ModelRef,
    Replay,
    Source,
    SourceItem,
    StageView,
    Stream,
    chosen_from,
    column,
    digest,
    draw_probes,
    losses_by_document,
)

MODEL = "factors"
"""What completes a row: the additive model and a few factors, as in the paper."""
LISTED = 20
"""Documents that are kept as those most at risk."""
SAME_MODEL = 1e-2
"""Nats per token by which losses may differ from the matrix's if model and text are those that it was measured with."""


def draw(values: np.ndarray, count: int, temperature: float | None, seed: int) -> np.ndarray:
    """Return the places of `count` of the values [N], each once: int64, in the order in which they were drawn.

    Draws without replacement, each time with p_j = softmax(values_j / temperature) over those that are left; the
    largest ones for a temperature of 0, and every one with the same chance for None. The keys values_j / temperature +
    Gumbel noise, in descending order, are distributed like these draws.
    """
    random = np.random.Generator(np.random.Philox(int(digest(["predicted", seed]), 16) % (1 << 64)))
    if temperature == 0:
        return np.argsort(-values, kind="stable")[:count]
    noise = random.gumbel(size=len(values))
    keys = noise if temperature is None else values / temperature + noise
    return np.argsort(-keys, kind="stable")[:count]


class PredictedReplay(Replay):
    """Replay of the documents that are forgotten most, as a forecast, a matrix of associations or the start model says.

    Offline, `scores` is a file with a row per upstream document. `column` says what decides: `forecast` of a file that
    `continual.forecast` has written; `change/<task>` of a matrix, which is what an oracle knows; `before`, the loss of
    the start model, with `temperature: 0` the rule of SuRe. `temperature: null` is replay at random of the same size.

    Online, with `matrix` and `at`, nothing is replayed in the first `at` steps. Then `probes` documents are measured
    under the model of that step and under that of the stage's start, the rest of the row is completed from the tasks of
    the matrix (additive model and factors), and the replay of what it says begins. What is expected is kept in the
    store, and the report shows it.

    Documents on which forgetting was measured are never replayed: the probes, and those that are marked in the column
    `measured` of either file.
    """

    reference: ClassVar[str] = "Jin & Ren 2025 (2406.14026)"

    type: Literal["predicted_replay"] = "predicted_replay"
    data: SourceItem = Field(description="the upstream documents: the same source as the text that was measured")
    scores: str | None = Field(None, description="offline: file of `continual.forecast` or `continual.associate`")
    column: str = Field("forecast", description="the numbers in `scores` that decide; more is replayed sooner")
    matrix: str | None = Field(None, description="online: Parquet file of `continual.associate` about a text")
    at: int | None = Field(None, ge=1, description="online: the step after which probes are measured, replay begins")
    probes: int = Field(30, ge=2, description="online: documents that are measured")
    documents: int = Field(ge=1, description="documents that are replayed")
    temperature: float | None = Field(
        0.1, ge=0, description="0: the highest numbers; null: at random; else p = softmax(number / temperature)"
    )
    seed: int | None = Field(None, ge=0, description="of the draws; null: the sequence's")

    @model_validator(mode="after")
    def _mode(self) -> "PredictedReplay":
        if (self.scores is None) == (self.matrix is None) or (self.matrix is None) != (self.at is None):
            raise ValueError("write `scores` to replay from the first step on, or `matrix` and `at` to measure first")
        return self

    @classmethod
    def paths(cls, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, tuple[str | int, ...]]]:
        for key in ("scores", "matrix"):
            if isinstance(options.get(key), str):
                yield options, key, (key,)

    def data_sources(self) -> Mapping[str, Source]:
        return {"data": self.data}

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        try:
            table = Upstream.read(self.scores, "scores") if self.scores else Upstream.read(str(self.matrix), "matrix")
            table.values(self.column) if self.scores else table.changes()
        except ConfigurationError as error:
            return f"`{error.key}`: {error.problem}; {error.fix}"
        free = int(table.free.sum()) - (0 if self.scores else self.probes)
        if free < self.documents:
            return f"`documents`: {self.scores or self.matrix} has {max(free, 0)} that may be replayed; lower it"
        if self.at is not None and view.steps is not None and self.at >= view.steps:
            return f"`at`: the stage has {view.steps} steps, and none is left to replay in; choose a lower one"
        return super().check(view, others)

    def rows(self, ctx: Context) -> Artefact:
        table = Upstream.read(str(self.scores), "scores")
        return self._drawn(ctx, table, table.values(self.column), table.free)

    def prepare(self, ctx: Context) -> dict[str, Artefact]:
        return super().prepare(ctx) if self.scores else {}

    def streams(self, ctx: Context, artefacts: dict[str, Artefact]) -> list[Stream]:
        return super().streams(ctx, artefacts) if self.scores else []

    def parts(self, view: StageView) -> Sequence[int]:
        return () if self.at is None else (self.at,)

    def part(self, ctx: Context, step: int, trained: ModelRef) -> list[Stream]:
        table = Upstream.read(str(self.matrix), "matrix")
        known = table.changes()
        places = draw_probes(self.probes, len(table.numbers), self._seed(ctx))
        values = self._measured(ctx, table, places, trained)
        row, free = COMPLETIONS[MODEL](known, places, values), table.free.copy()
        free[places] = False
        drawn = self._drawn(ctx, table, row, free)
        row[places] = values
        made_of = {"models": [ctx.stage_start.hash, trained.hash], "replay": drawn.hash, "label": self.label}
        made_of |= {"matrix": hashlib.sha256(known.tobytes()).hexdigest()}
        self._keep(ctx, table, places, row, made_of)
        return super().streams(ctx, {"rows": drawn})

    def _measured(self, ctx: Context, table: Upstream, places: np.ndarray, trained: ModelRef) -> np.ndarray:
        """Return what the stage has changed of the documents at these places [K] so far, in nats per token [K]."""
        numbers = table.numbers[places]
        rows = ctx.read(chosen_from(self.data, numbers.tolist()))
        losses = []
        for model in (ctx.stage_start, trained):
            scored = ctx.score(model, rows).tables()
            documents, nats, tokens = losses_by_document(rows, (column(table, "nll") for table in scored))
            if len(documents) != len(numbers):
                problem = f"{len(documents)} of {len(numbers)} probes of {self.matrix} have tokens in it"
                raise ConfigurationError("data", problem, "name the source that the matrix was measured on")
            losses.append(nats / tokens)
        # The source yields documents in the order of their numbers.
        before, after = (loss[np.argsort(np.argsort(numbers))] for loss in losses)
        change = after - before
        apart = 0.0
        if "before" in table.table.column_names:
            apart = float(np.abs(before - table.values("before")[places]).mean())
        other = "" if apart < SAME_MODEL else f"; the matrix's losses before the task differ by {apart:.2g} on average"
        with ctx.step(f"{self.label} probes") as step:
            step.note(f"{len(numbers)} documents, {change.mean():+.4f} nats per token on average{other}")
        return np.asarray(change)

    def _keep(
        self, ctx: Context, table: Upstream, places: np.ndarray, row: np.ndarray, made_of: dict[str, Any]
    ) -> None:
        """Store what is expected of the upstream documents [N], for the report.

        It is addressed by the documents at `places`, which were measured, and by `made_of`, which names the models that
        they were measured under, the matrix, and the replay.
        """
        inputs = {**made_of, "probes": table.numbers[places].tolist()}
        completion = {
            "matrix": self.matrix, "model": MODEL, "probes": len(places), "documents": len(row),
            "mean": float(row.mean()), "measured_mean": float(row[places].mean()),
            "at_risk": [
                {"document": str(table.numbers[place]), "change": float(row[place]), "measured": bool(place in places)}
                for place in np.argsort(-row, kind="stable")[:LISTED]
            ],
        }  # fmt: skip
        artefact = ctx.store.artefact("completions", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                writer.finish(completion=completion)

    def _drawn(self, ctx: Context, table: Upstream, values: np.ndarray, free: np.ndarray) -> Artefact:
        """Return the rows of documents that are drawn by their values [N], among those that are `free` [N]."""
        numbers, left_out = table.numbers[free], int((~free).sum())
        places = draw(values[free], self.documents, self.temperature, self._seed(ctx))
        with ctx.step(f"{self.label} documents") as step:
            note = f"; {left_out:,} on which forgetting was measured are left out" if left_out else ""
            step.note(f"{self.documents:,} of {len(numbers):,}{note}")
        return ctx.read(chosen_from(self.data, numbers[places].tolist()))

    def _seed(self, ctx: Context) -> int:
        return ctx.view.seed if self.seed is None else self.seed
