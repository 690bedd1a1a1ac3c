"""Which documents predicted replay draws, and which it never does."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from baselines.predicted_replay import PredictedReplay, draw
from tests.kits import baselines as kit

VALUES = np.array([0.3, -0.1, 0.05, 0.2])
TEXT = {"type": "jsonl", "path": "qa.jsonl", "text": "answer"}
REPEATS = 20_000


def first_two(temperature: float | None) -> np.ndarray:
    """How often each pair of documents is drawn, in this order [4, 4]."""
    counts = np.zeros((4, 4))
    for seed in range(REPEATS):
        counts[tuple(draw(VALUES, 2, temperature, seed))] += 1
    return counts


@pytest.mark.parametrize("temperature", [0.1, 1.0, None])
def test_draws_are_without_replacement_by_the_softmax_of_what_is_left(temperature: float | None) -> None:
    p = np.exp(VALUES / temperature) if temperature else np.ones(4)
    p /= p.sum()
    expected = np.outer(p, p) / (1 - p)[:, None]  # the second among those that are left
    found = first_two(temperature)
    assert np.trace(found) == 0
    off = ~np.eye(4, dtype=bool)
    assert stats.chisquare(found[off], expected[off] / expected[off].sum() * REPEATS).pvalue > 0.001


def test_a_temperature_of_0_takes_the_highest() -> None:
    assert draw(VALUES, 3, 0, 5).tolist() == [0, 3, 2]


def test_an_endless_temperature_is_replay_at_random() -> None:
    assert draw(VALUES, 4, 1e12, 7).tolist() == draw(VALUES, 4, None, 7).tolist()


def table(folder: Path, **columns: Any) -> str:
    file = folder / "forecast.parquet"
    numbers = {"document": [str(number) for number in range(12)], "forecast": np.linspace(0, 1, 12), **columns}
    pq.write_table(pa.table({name: pa.array(values) for name, values in numbers.items()}), file)
    return str(file)


def entry(scores: str, **options: Any) -> dict[str, Any]:
    return {"type": "predicted_replay", "data": TEXT, "scores": scores, "documents": 3, **options}


def test_measured_documents_are_never_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)
    measured = [number >= 9 for number in range(12)]
    asked = entry(table(tmp_path, measured=measured), temperature=0)
    ctx = kit.context(tmp_path, [asked])
    [mitigation] = ctx.sequence.mitigation
    read: list[Any] = []
    monkeypatch.setattr(type(ctx), "read", lambda self, source: read.append(source))
    assert isinstance(mitigation, PredictedReplay)
    assert mitigation.check(ctx.view, []) is None
    mitigation.rows(ctx)
    assert read[0].arguments["numbers"] == [6, 7, 8]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"column": "change/sort"}, "has no column `change/sort`; it has: forecast"),
        ({"documents": 13}, "has 12 that may be replayed"),
        ({"scores": "nowhere.parquet"}, "no Parquet file that can be read"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    ctx = kit.context(tmp_path, [{**entry(table(tmp_path)), **changed}])
    [mitigation] = ctx.sequence.mitigation
    assert words in str(mitigation.check(ctx.view, []))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"document": [f"hash{n}" for n in range(12)]}, "not about the documents of a text"),
        ({"forecast": [float("nan")] * 12}, "is not finite everywhere"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    mitigation = PredictedReplay.model_validate(entry(table(tmp_path, **columns)))
    ctx = kit.context(tmp_path, [])
    assert words in str(mitigation.check(ctx.view, []))
