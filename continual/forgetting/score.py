"""One type for a score, from lm-eval to the report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Score:
    """How well a model does on a task or a text; higher is better.

    `stderr`: the standard error, None if unknown. `n`: the number of documents. `unit`: only scores of one unit have a
    mean; "" where summary.json's matrix, which has no units, was read. `metric`, `filter`: lm-eval's names of the
    number. `tokens`: scored tokens, of a text. `drift`, `drift_stderr`: the forward KL from the start model in nats per
    token of a text on which it is measured, and its standard error, None if unknown; `drift_stage`,
    `drift_stage_stderr`: the same from the model that the stage began with.
    """

    score: float
    stderr: float | None = None
    n: int | None = None
    unit: str = ""
    metric: str = ""
    filter: str = ""
    tokens: int | None = None
    drift: float | None = None
    drift_stderr: float | None = None
    drift_stage: float | None = None
    drift_stage_stderr: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a ledger or a score file; what only texts have is there only for them."""
        return {key: value for key, value in asdict(self).items() if key not in OF_TEXTS or value is not None}


OF_TEXTS = ("tokens", "drift", "drift_stderr", "drift_stage", "drift_stage_stderr")
Scores = dict[str, Score]
"""Scores of one model by task or text."""


def scores_as_json(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Return scores by task as a ledger or a score file has them."""
    return {task: score.as_json() for task, score in scores.items()}


def are_scores(entries: Any) -> bool:
    """Return whether a value of JSON is scores by task."""
    return isinstance(entries, dict) and all(isinstance(entry, dict) and _is_score(entry) for entry in entries.values())


def _is_score(entry: dict[str, Any]) -> bool:
    kinds = {"score": float | int, "stderr": float | int | None, "n": int | None, "tokens": int | None}
    for drift in ("drift", "drift_stage"):
        kinds |= {drift: float | int, f"{drift}_stderr": float | int | None}
    known = {field.name for field in fields(Score)}
    return (
        "score" in entry and entry.keys() <= known
        and all(isinstance(value, kinds.get(name, str)) for name, value in entry.items())
    )  # fmt: skip


def scores_from_json(entries: Mapping[str, Mapping[str, Any]]) -> Scores:
    """Read scores by task from a ledger, a score file or summary.json."""
    return {task: Score(**entry) for task, entry in entries.items()}
