"""Unknown and missing keys, in models of any shape."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from continual.config.overrides import apply_override
from continual.config.problems import explain
from continual.errors import ConfigurationError


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
