"""Ratios that make whole rows, and sources that are learned and measured."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.config.schema import Sequence
from continual.preflight.check_methods import check_methods, nearest_ratios
from tests.kits.project import sequence, write_project


@settings(max_examples=300, deadline=None)
@given(batch_rows=st.integers(1, 4096), ratio=st.floats(1e-4, 8.0))
def test_proposed_ratios_are_whole_rows_next_to_the_wanted_ratio(batch_rows: int, ratio: float) -> None:
    near = nearest_ratios(ratio, batch_rows)
    if not near:
        assert abs(ratio * batch_rows - round(ratio * batch_rows)) <= 1e-6
        assert round(ratio * batch_rows) >= 1
    for value in near:
        assert nearest_ratios(value, batch_rows) == []
        assert abs(value - ratio) * batch_rows < 1 + 1e-6


@given(batch_rows=st.integers(1, 512), rows=st.integers(1, 512))
def test_every_whole_number_of_rows_has_a_ratio(batch_rows: int, rows: int) -> None:
    assert nearest_ratios(rows / batch_rows, batch_rows) == []


@pytest.mark.parametrize(
    ("stage", "replayed", "keys"),
    [
        ({"path": "qa.jsonl"}, {"path": "old.jsonl"}, ["mitigation.0.data"]),
        ({"path": "qa.jsonl"}, {"path": "old.jsonl", "limit": 50}, ["mitigation.0.data"]),
        ({"path": "old.jsonl"}, {"path": "qa.jsonl"}, ["stages.0.data"]),
        ({"path": "qa.jsonl"}, {"path": "old.jsonl", "where": {"answer": "w2 w3"}}, []),
    ],
)
def test_what_is_learned_and_measured_is_said(
    stage: dict[str, Any], replayed: dict[str, Any], keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    text = {"type": "jsonl", "text": "question"}
    (tmp_path / "old.jsonl").write_text((tmp_path / "qa.jsonl").read_text())
    value = sequence(
        stages=[{"name": "one", "data": {**text, **stage}, "steps": 10}],
        mitigation=[{"type": "pretraining_subset", "loss": "nll", "data": {**text, **replayed}, "ratio": 0.5}],
        evaluate={"texts": [{"name": "old", "data": {**text, "path": "old.jsonl"}}]},
    )
    notes = [note for note in check_methods(Sequence.model_validate(value), None) if "also measured" in note]
    assert [note.partition(" is also measured as the text `old`, which may score ")[0] for note in notes] == keys
