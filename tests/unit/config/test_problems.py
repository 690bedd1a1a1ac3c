"""Unknown and missing keys, in models of any shape."""

from typing import Annotated, Any

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


class Root(Strict):
    section: Leaf | None = None
    leaves: dict[str, Leaf] = Field(default_factory=dict)
    listed: Annotated[list[Leaf], BeforeValidator(lambda value: value)] = Field(default_factory=list)
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
        ({"listed": [{}]}, "listed.0.width", "add `width:`, the number of columns"),
        ({"leaves": {"a": {}}}, "leaves.a.width", "add `width:`, the number of columns"),
        ({"width": 1}, "width", "did you mean `section.width`?"),
    ],
)
def test_a_key_is_explained_by_the_model_that_it_is_in(raw: dict[str, Any], key: str, fix: str) -> None:
    error = problem_of(raw)
    assert (error.key, error.fix, error.file) == (key, fix, "own.yaml")


def test_the_override_that_set_a_bad_key_is_named() -> None:
    assert problem_of({}, "section.widht=1").file == "own.yaml with override `section.widht=1`"
