"""Which tasks a forecast can be made for: those that begin with the matrix's model, and have its text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from continual.associations.matrix import Associations
from continual.associations.measure import load_task
from continual.errors import ConfigurationError
from continual.models.files import model_hash
from tests.kits.project import sequence, write_project
from tests.unit.associations.structures import associations_of


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Associations:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    whole = sequence(evaluate={"texts": [{"name": "old", "data": sequence()["stages"][0]["data"]}]})
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**whole, "stages": whole["stages"][:1], "mitigation": []}))
    facts = {"upstream": "old", "start_model": model_hash(tmp_path / "model")}
    return replace(associations_of(np.zeros((3, 5))), documents=tuple("01234"), facts=facts)


def test_the_probes_are_the_text(matrix: Associations) -> None:
    loaded = load_task("task.yaml", [], matrix, np.array([3, 1]))
    [text] = loaded.sequence.evaluate.texts
    assert text.name == "old"
    assert "probes" in loaded.sequence.name


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"facts": {"upstream": "old", "start_model": "another"}}, "model.source", "is not the model from which the"),
        ({"kind": "lost"}, "--matrix", "measure associations of a text"),
    ],
)
def test_a_task_that_cannot_be_forecast_is_refused_before_it_trains(
    matrix: Associations, changes: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        load_task("task.yaml", [], replace(matrix, **changes), np.array([0, 1]))
    assert refused.value.key == key


def test_a_task_without_the_text_is_refused(matrix: Associations) -> None:
    other = replace(matrix, facts={**matrix.facts, "upstream": "new"})
    with pytest.raises(ConfigurationError, match="the text `new`, which the matrix was measured on, is missing"):
        load_task("task.yaml", [], other, np.array([0, 1]))
