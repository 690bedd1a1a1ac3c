"""Which documents predicted replay draws, and which it never does."""

import json
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


# Online ---------------------------------------------------------------------------------------------------------

TASKS, KNOWN = 5, 40
CUT = 8


def matrix(folder: Path, **columns: Any) -> tuple[str, np.ndarray]:
    """A matrix of low rank about documents 0 to KNOWN - 1 in another order."""
    random = np.random.default_rng(0)
    numbers = random.permutation(KNOWN)
    change = random.normal(size=(TASKS, 1)) * random.normal(size=KNOWN) + 0.01 * random.normal(size=(TASKS, KNOWN))
    named = {"document": [str(number) for number in numbers], "before": np.ones(KNOWN)}
    named |= {f"change/t{task}": row for task, row in enumerate(change)} | columns
    file = folder / "associations.parquet"
    pq.write_table(pa.table({name: pa.array(values) for name, values in named.items()}), file)
    return str(file), change


def online(file: str, **options: Any) -> dict[str, Any]:
    return {"type": "predicted_replay", "data": TEXT, "matrix": file, "at": CUT, "probes": 6, "documents": 9, **options}


def document(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(1, kit.VOCABULARY, 3 + number % 7).astype(np.int32)


def test_probes_are_measured_the_row_is_completed_and_the_rest_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one forward pass per probe: which documents are read, and in which order their changes are used."""
    import torch
    from transformers import LlamaForCausalLM

    from continual.data.packing import pack_rows
    from continual.forgetting.completion.complete import MODELS

    kit.without_ray(monkeypatch)
    file, change = matrix(tmp_path)
    ctx = kit.context(tmp_path, [online(file, temperature=0.05)])
    [mitigation] = ctx.sequence.mitigation
    assert mitigation.check(ctx.view, []) is None
    assert mitigation.prepare(ctx) == {}
    assert mitigation.streams(ctx, {}) == []
    assert list(mitigation.parts(ctx.view)) == [CUT]
    asked: list[list[int]] = []

    def read(self: Any, source: Any) -> Any:
        numbers = source.arguments["numbers"]
        asked.append(numbers)
        bodies = [document(number) for number in numbers]
        weights = [(np.arange(len(body)) > 0).astype(np.float32) for body in bodies]
        return kit.stored(ctx.store, f"chosen {numbers}", pack_rows(bodies, weights, 0, kit.TOKENS), shard_rows=1)

    monkeypatch.setattr(type(ctx), "read", read)
    trained, _ = kit.models()
    [stream] = mitigation.part(ctx, CUT, trained)
    probes, replayed = asked
    assert len(set(probes)) == 6
    assert len(set(replayed)) == 9
    assert not set(probes) & set(replayed)

    def loss(folder: str, number: int) -> float:
        ids = torch.tensor(document(number)[None].astype(np.int64))
        with torch.no_grad():
            return float(LlamaForCausalLM.from_pretrained(folder)(ids, labels=ids).loss)

    numbers = [int(name) for name in pq.read_table(file)["document"].to_pylist()]
    places = np.array(sorted(numbers.index(number) for number in probes))
    values = np.array([loss(trained.path, numbers[p]) - loss(ctx.stage_start.path, numbers[p]) for p in places])
    row = MODELS["factors"](change, places, values)
    free = np.setdiff1d(np.arange(KNOWN), places)
    chosen = draw(row[free], 9, 0.05, ctx.view.seed)
    assert replayed == sorted(numbers[place] for place in free[chosen])
    assert (stream.name, stream.ratio) == ("predicted_replay", 0.25)
    expected = row.copy()
    expected[places] = values
    for _ in range(2):
        [manifest] = (Path(ctx.store.root) / "completions").glob("*/manifest.json")
        kept = json.loads(manifest.read_text())
        completion = kept["completion"]
        assert (completion["probes"], completion["documents"]) == (6, KNOWN)
        assert completion["mean"] == pytest.approx(expected.sum() / KNOWN, abs=1e-5)
        assert completion["measured_mean"] == pytest.approx(sum(values) / 6, abs=1e-5)
        worst = completion["at_risk"][0]
        assert worst["change"] == pytest.approx(expected.max(), abs=1e-5)
        assert worst["document"] == str(numbers[int(np.argmax(expected))])
        assert [each["document"] for each in completion["at_risk"] if each["measured"]] == [
            str(numbers[place]) for place in np.argsort(-expected) if place in places
        ][: sum(each["measured"] for each in completion["at_risk"])]
        assert kept["inputs"]["models"] == [ctx.stage_start.hash, trained.hash]
        assert kept["inputs"]["replay"] == stream.rows.hash
        mitigation.part(ctx, CUT, trained)
    assert asked[2:4] == asked[:2], "a resume asks for the same"


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"measured": [True] * 30 + [False] * 10}, {"probes": 2}, "has 8 that may be replayed"),
        ({}, {"probes": 35}, "has 5 that may be replayed"),
        ({}, {"at": kit.STEPS}, f"the stage has {kit.STEPS} steps, and none is left"),
        ({f"change/t{task}": [0.0, 1.0] * 20 for task in range(TASKS)}, {}, "answers that are lost or kept"),
    ],
)
def test_what_cannot_be_replayed_online_is_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    file, _ = matrix(tmp_path, **columns)
    ctx = kit.context(tmp_path, [online(file, **options)])
    [mitigation] = ctx.sequence.mitigation
    assert words in str(mitigation.check(ctx.view, []))


@pytest.mark.parametrize(
    "given", [{"scores": "x", "matrix": "x", "at": 3}, {}, {"matrix": "x"}, {"scores": "x", "at": 3}]
)
def test_one_of_both_modes_is_chosen(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="write `scores` to replay from the first step on, or `matrix` and `at`"):
        PredictedReplay.model_validate({"type": "predicted_replay", "data": TEXT, "documents": 3, **given})


def test_evaluated_documents_are_never_replayed_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = np.arange(KNOWN) % 2 == 0
    file, _ = matrix(tmp_path, measured=marked)
    mitigation = PredictedReplay.model_validate(online(file, documents=10))
    numbers = np.array([int(name) for name in pq.read_table(file)["document"].to_pylist()])
    monkeypatch.setattr(PredictedReplay, "_measured", lambda self, ctx, table, places, trained: np.zeros(len(places)))
    ctx = kit.context(tmp_path, [])
    read: list[Any] = []

    def rows(self: Any, source: Any) -> Any:
        read.append(source.arguments["numbers"])
        return ctx.store.artefact("rows", {"test": "replay"})

    monkeypatch.setattr(type(ctx), "read", rows)
    mitigation.part(ctx, CUT, ctx.start)
    assert not set(read[0]) & set(numbers[marked].tolist())
