"""What a page says of a matrix, and what it says where there is nothing to say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from continual.associations.likeness import Likeness
from continual.associations.matrix import Associations, Kind
from continual.associations.results import analyzed, page


def text_of(change: np.ndarray, kind: Kind = "lost", probes: int = 4, **facts: Any) -> str:
    tasks, documents = change.shape
    matrix = Associations(
        tuple(f"task{n}" for n in range(tasks)), tuple(map(str, range(documents))), np.ones(documents), change, kind,
        {"upstream": "old", **facts},
    )  # fmt: skip
    evaluate = SimpleNamespace(texts=[])
    base = SimpleNamespace(sequence=SimpleNamespace(seed=0, evaluate=evaluate, stages=[]))
    loaded: Any = SimpleNamespace(base=base, associate=SimpleNamespace(probes=probes, draws=2, upstream="old"))
    return "\n".join(page(matrix, analyzed(Likeness(matrix, loaded))))


def test_nothing_that_is_lost_is_a_result() -> None:
    text = text_of(np.zeros((3, 6)))
    assert "all changes are equal: there is nothing to explain" in text
    assert text.count("not computed, as the documents of a task of lm-eval are no text") == 2


def test_what_is_left_out_is_counted() -> None:
    assert "7 documents are left out: the start model is wrong about them" in text_of(np.eye(3, 6), wrong_before=7)


@pytest.mark.parametrize(("tasks", "words"), [(2, "forecasts are not tried out"), (3, "from 5 probes (instead of 30:")])
def test_fewer_tasks_or_documents_than_asked_for_are_told(tasks: int, words: str) -> None:
    assert words in text_of(np.random.default_rng(0).normal(size=(tasks, 6)), "nats", probes=30)
