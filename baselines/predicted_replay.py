"""Replay of the upstream documents that a task is expected to make the model forget."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.api import (
    Artefact,
    ConfigurationError,
    Context,
    Mitigation,
    Replay,
    Source,
    SourceItem,
    StageView,
    chosen_from,
    digest,
)

MEASURED = "measured"
"""The column that is true for documents on which forgetting was measured."""


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

    `scores` is a file with a row per upstream document. `column` says what decides: `forecast` of a file that
    `continual.forecast` has written; `change/<task>` of a matrix, which is what an oracle knows; `before`, the loss of
    the start model, with `temperature: 0` the rule of SuRe. `temperature: null` is replay at random of the same size.
    Documents on which the forecast was measured are never replayed.
    """

    reference: ClassVar[str] = "Jin & Ren 2025 (2406.14026)"

    type: Literal["predicted_replay"] = "predicted_replay"
    data: SourceItem = Field(description="the upstream documents: the same source as the text that was measured")
    scores: str = Field(description="Parquet file of `continual.forecast` or `continual.associate`")
    column: str = Field("forecast", description="the numbers in it that decide; more is replayed sooner")
    documents: int = Field(ge=1, description="documents that are replayed")
    temperature: float | None = Field(
        0.1, ge=0, description="0: the highest numbers; null: at random; else p = softmax(number / temperature)"
    )
    seed: int | None = Field(None, ge=0, description="of the draw; null: the sequence's")

    @classmethod
    def paths(cls, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, tuple[str | int, ...]]]:
        if isinstance(options.get("scores"), str):
            yield options, "scores", ("scores",)

    def data_sources(self) -> Mapping[str, Source]:
        return {"data": self.data}

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        try:
            numbers, _, _ = self._read()
        except ConfigurationError as error:
            return f"`{error.key}`: {error.problem}; {error.fix}"
        if len(numbers) < self.documents:
            return f"`documents`: {self.scores} has {len(numbers)} that may be replayed; lower it"
        return super().check(view, others)

    def rows(self, ctx: Context) -> Artefact:
        numbers, values, measured = self._read()
        seed = ctx.view.seed if self.seed is None else self.seed
        places = draw(values, self.documents, self.temperature, seed)
        with ctx.step(f"{self.label} documents") as step:
            left_out = f"; {measured:,} on which forgetting was measured are left out" if measured else ""
            step.note(f"{self.documents:,} of {len(numbers):,}{left_out}")
        return ctx.read(chosen_from(self.data, numbers[places].tolist()))

    def _read(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the numbers of documents that may be replayed, what decides of each, and how many others there are.

        Raises ConfigurationError if the file or the column is missing or holds something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        fix = "name a file of `continual.forecast` or `continual.associate`"
        try:
            table = pq.read_table(Path(self.scores))
        except (OSError, pa.ArrowException) as error:
            raise ConfigurationError("scores", f"{self.scores} is no Parquet file that can be read", fix) from error
        if "document" not in table.column_names or self.column not in table.column_names:
            known = ", ".join(name for name in table.column_names if name not in ("document", MEASURED))
            raise ConfigurationError("column", f"{self.scores} has no column `{self.column}`", f"it has: {known}")
        try:
            numbers = np.array([int(name) for name in table.column("document").to_pylist()])
            values = np.asarray(table.column(self.column).to_numpy(), np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError("scores", f"{self.scores} is not about the documents of a text", fix) from error
        if not np.isfinite(values).all():
            raise ConfigurationError("column", f"`{self.column}` of {self.scores} is not finite everywhere", fix)
        if MEASURED not in table.column_names:
            return numbers, values, 0
        free = ~np.asarray(table.column(MEASURED).to_numpy(zero_copy_only=False), bool)
        return numbers[free], values[free], int((~free).sum())
