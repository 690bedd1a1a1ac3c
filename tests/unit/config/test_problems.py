"""Unknown and missing keys, in models of any shape."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from continual.config.load import load_sequence
from continual.config.overrides import apply_override
from continual.config.problems import explain
from continual.errors import ConfigurationError
from continual.preflight.check import load_checked
from tests.kits.project import sequence, write_project, write_yaml


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Leaf(Strict):
    width: int = Field(description="number of columns")
    name: str = "x"


class Circle(Strict):
    type: Literal["circle"]
    radius: float = 1.0


class Square(Strict):
    type: Literal["square"]
    side: float = Field(description="length of a side")
    square: float = 1.0


class Root(Strict):
    section: Leaf | None = None
    leaves: dict[str, Leaf] = Field(default_factory=dict)
    listed: Annotated[list[Leaf], BeforeValidator(lambda value: value)] = Field(default_factory=list)
    shapes: list[Annotated[Circle | Square, Field(discriminator="type")]] = Field(default_factory=list)
    fixed: tuple[Leaf, ...] = ()
    free: dict[str, Any] = Field(default_factory=dict)


def problem_of(raw: dict[str, Any], *overrides: str) -> ConfigurationError:
    applied = [apply_override(raw, text) for text in overrides]
    with pytest.raises(ValidationError) as raised:
        Root.model_validate(raw)
    return explain(raised.value, Root, raw, "own.yaml", applied)


@pytest.mark.parametrize(
    ("raw", "key", "fix"),
    [
        ({"sektion": {}}, "sektion", "did you mean `section`?"),
        ({"section": {"width": 1, "nam": ""}}, "section.nam", "did you mean `name`?"),
        ({"leaves": {"a.b": {"width": 1, "widht": 1}}}, "leaves.a.b.widht", "did you mean `width`?"),
        ({"listed": [{"width": 1}, {"width": 1, "zzz": 1}]}, "listed.1.zzz", "known here: name, width"),
        ({"listed": [{}]}, "listed.0.width", "add `width:` (number of columns)"),
        ({"leaves": {"a": {}}}, "leaves.a.width", "add `width:` (number of columns)"),
        ({"fixed": [{"width": 1, "widht": 1}]}, "fixed.0.widht", "did you mean `width`?"),
        ({"shapes": [{"type": "square", "side": 1, "sied": 1}]}, "shapes.0.sied", "did you mean `side`?"),
        ({"shapes": [{"type": "square", "square": 1}]}, "shapes.0.side", "add `side:` (length of a side)"),
        ({"width": 1}, "width", "did you mean `section.width`?"),
    ],
)
def test_a_key_is_explained_by_the_model_that_it_is_in(raw: dict[str, Any], key: str, fix: str) -> None:
    error = problem_of(raw)
    assert (error.key, error.fix, error.file) == (key, fix, "own.yaml")


def test_the_override_that_set_a_bad_key_is_named() -> None:
    assert problem_of({}, "section.widht=1").file == "own.yaml with override `section.widht=1`"


def test_a_wrong_key_hides_no_mistake_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    config = sequence(unknown=1)
    config["stages"][0]["data"]["path"] = "gone.jsonl"
    config["train"]["learning_rate"] = -1
    write_yaml(tmp_path, config)
    with pytest.raises(ConfigurationError) as raised:
        load_checked("seq.yaml", [])
    told = str(raised.value)
    assert told.startswith("seq.yaml: unknown: there is no such key")
    assert "2 more errors: train.learning_rate: -1 is out of range, stages.0.data.path" in told


def test_findings_beyond_those_put_into_words_are_counted(tmp_path: Path) -> None:
    write_yaml(tmp_path, sequence(stages=[{"name": "a", "x": 1}] * 80))
    with pytest.raises(ConfigurationError, match="and 159 more errors"):
        load_sequence(tmp_path / "seq.yaml")
