"""Former names of keys keep working everywhere, with a note; both names at once are refused."""

from pathlib import Path
from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.errors import ConfigurationError
from continual.preflight.check import check
from tests.kits.project import sequence, write_project, write_yaml

OLD: list[dict[str, Any]] = [
    {"type": "context_free", "share": 0.5, "rows": 70},
    {"type": "task_replay", "share": 0.5, "rows": 9},
    {"type": "ewc", "rows": "task", "sequences": 3},
]
NEW: list[dict[str, Any]] = [
    {"type": "context_free", "ratio": 0.5, "samples": 70},
    {"type": "task_replay", "ratio": 0.5, "buffer_rows": 9},
    {"type": "ewc", "estimate_on": "task", "documents": 3},
]


def project(folder: Path, mitigation: list[dict[str, Any]], **train: Any) -> Path:
    write_project(folder)
    value = sequence(mitigation=mitigation)
    value["train"] = {**value["train"], **train}
    return write_yaml(folder, value)


def test_a_yaml_with_former_names_is_the_same_sequence(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = load_sequence(project(tmp_path / "old", OLD, clip=0.5))
    new = load_sequence(project(tmp_path / "new", NEW, max_grad_norm=0.5))
    assert old.identity == new.identity
    assert old.sequence.train.max_grad_norm == 0.5
    assert new.notes == []


def test_every_former_name_has_a_note_with_its_place(tmp_path: Path) -> None:
    loaded = load_sequence(project(tmp_path, OLD, clip=0.5))
    places = [note.split("`")[1] for note in loaded.notes]
    assert places == [
        "mitigation.0.share", "mitigation.0.rows", "mitigation.1.share", "mitigation.1.rows", "mitigation.2.rows",
        "mitigation.2.sequences", "train.clip",
    ]  # fmt: skip
    assert "`train.clip` is now called `max_grad_norm`; the former name still works" in check(loaded)


def python_source(folder: Path, key: str, function: str = "a:b") -> Path:
    write_project(folder)
    value = sequence()
    value["stages"][0]["data"] = {"type": "python", key: function}
    return write_yaml(folder, value)


def test_the_function_of_a_python_source_may_be_called_rows(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = (
        load_sequence(python_source(tmp_path / name, key)) for name, key in (("old", "rows"), ("new", "function"))
    )
    assert old.identity == new.identity
    assert [note.split("`")[1] for note in old.notes] == ["stages.0.data.rows"]


def test_an_override_of_rows_replaces_the_function_of_a_python_source(tmp_path: Path) -> None:
    loaded = load_sequence(python_source(tmp_path, "function"), ["stages.0.data.rows=c:d"])
    assert loaded.resolved["stages"][0]["data"]["function"] == "c:d"


def test_an_override_by_a_former_name_replaces_the_value(tmp_path: Path) -> None:
    loaded = load_sequence(project(tmp_path, NEW), ["mitigation.0.share=0.25", "train.clip=2"])
    assert loaded.sequence.mitigation[0].replay_ratio() == 0.25
    assert loaded.sequence.train.max_grad_norm == 2


def test_both_names_at_once_are_refused(tmp_path: Path) -> None:
    path = project(tmp_path, [{"type": "task_replay", "share": 0.5, "ratio": 0.5}])
    with pytest.raises(ConfigurationError, match=r"mitigation\.0\.share: this key is now called `ratio`") as error:
        load_sequence(path)
    assert str(path) in str(error.value)


def test_a_wrong_value_is_told_at_the_new_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mitigation\.0\.ratio: -1 is out of range"):
        load_sequence(project(tmp_path, [{"type": "context_free", "share": -1}]))
