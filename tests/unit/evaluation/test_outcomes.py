"""What records say of each document: of tasks, filters, groups, repeats and texts, and when they say nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.evaluation.outcomes import RECORDS, stored_outcomes
from continual.forgetting import Score
from continual.store import Store


def stored(store: Store, name: str, records: list[dict[str, Any]]) -> str:
    """Store an evaluation's records; return its address."""
    place = store.artefact("scores", {"name": name})
    with store.write(place, {"name": name}) as writer:
        assert writer is not None
        with writer.files() as folder:
            (Path(folder) / RECORDS).write_text("".join(json.dumps(record) + "\n" for record in records))
        writer.finish()
    return place.hash


def event(stage: int, task: str, score: Score, address: str) -> dict[str, Any]:
    return {"stage": stage, "scores": {task: score.as_json()}, "evaluations": {task: address}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def record(task: str, number: int, **values: Any) -> dict[str, Any]:
    return {"task": task, "doc_id": number, "doc_hash": f"h{number}", **values}


def test_a_task_has_the_documents_of_its_filter(store: Store) -> None:
    records = [record("t", n, filter="strict", em=float(n < 3)) for n in range(4)]
    records += [record("t", n, filter="loose", em=1.0) for n in range(4)]
    score = Score(0.75, 0.1, 4, "accuracy", "em", "strict")
    found = stored_outcomes([event(0, "t", score, stored(store, "t", records))], store.root)
    assert found[0, "t"].documents == ("t/h0", "t/h1", "t/h2", "t/h3")
    right = found[0, "t"].right
    assert right is not None
    assert right.tolist() == [True, True, True, False]


def test_a_document_that_is_there_twice_is_one(store: Store) -> None:
    records = [record("t", n, filter="none", acc=float(n < 2)) for n in range(4)]
    records += [record("t", 3, filter="none", acc=0.0)]
    score = Score(2 / 5, None, 5, "accuracy", "acc", "none")
    outcomes = stored_outcomes([event(0, "t", score, stored(store, "t", records))], store.root)[0, "t"]
    assert len(outcomes.documents) == 4
    assert outcomes.weight.max() == pytest.approx(2 / 5)
    assert outcomes.right is None


def test_a_group_has_the_documents_of_its_members(store: Store) -> None:
    records = [record("one", n, filter="none", acc=1.0) for n in range(2)]
    records += [record("two", n, filter="none", acc=0.0) for n in range(6)]
    for score in (0.25, 0.5):  # by size, and equally
        kept = Score(score, None, 8, "accuracy", "acc", "none")
        found = stored_outcomes([event(0, "group", kept, stored(store, f"g{score}", records))], store.root)
        assert len(found[0, "group"].documents) == 8


def test_a_text_counts_nats_and_tokens(store: Store) -> None:
    records = [{"task": "x", "document": d, "nats_per_token": 1.0 + d, "tokens": 10 * (d + 1)} for d in range(3)]
    nats = sum((1.0 + d) * 10 * (d + 1) for d in range(3))
    score = Score(-nats / 60, 0.1, 3, "nats/token", "nll", "none", 60)
    outcomes = stored_outcomes([event(2, "x", score, stored(store, "x", records))], store.root)[2, "x"]
    assert list(outcomes.weight) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (0.9, "the score is not the mean of the documents, as with a corpus's BLEU"),
        ([-3.2, 4], "a document has no number of its own, as with a perplexity"),
    ],
)
def test_what_one_document_adds_may_be_unknown(store: Store, value: Any, why: str) -> None:
    records = [record("t", n, filter="none", bleu=value) for n in range(4)]
    score = Score(0.5, None, 4, "bleu", "bleu", "none")
    assert stored_outcomes([event(0, "t", score, stored(store, "t", records))], store.root) == {}, why


def test_evaluations_that_are_gone_damaged_or_unnamed_have_no_outcomes(store: Store) -> None:
    records = [record("t", n, filter="none", acc=1.0) for n in range(4)]
    score = Score(1.0, None, 4, "accuracy", "acc", "none")
    address = stored(store, "t", records)
    (store.root / "scores" / address / RECORDS).write_text("other\n")
    unnamed = {"stage": 1, "scores": {"t": score.as_json()}}
    assert stored_outcomes([event(0, "t", score, address), unnamed, event(2, "t", score, "0" * 16)], store.root) == {}
