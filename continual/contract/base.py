"""The base of every model in the configuration."""

from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from annotated_types import Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

LARGEST = (1 << 31) - 1
"""The largest whole number of an option without its own bound: libraries written in C take no larger one."""
LARGEST_SEED = (1 << 32) - 1
"""The largest seed: numpy's, which lm-eval uses."""
LARGEST_FLOAT = 3.4e38
"""About the largest number that a float32 holds."""
Version = str | int | float | None
"""The user's own version of code that is known by its files: part of the address of what it makes."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys: a typo must never silently fall back to a default.

    It refuses what pydantic would take without a word, too: a truth value for a number, and numbers that no library
    below can hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    renamed: ClassVar[dict[str, str]] = {}
    """Former names of keys, old to new. They still work in a YAML and on the command line, with a note."""
    usual: ClassVar[dict[str, str]] = {}
    """What other tools call a key, to its name here, for "did you mean"."""

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        field = cls.model_fields.get(name)
        kinds = _kinds(field.annotation) if field else set()
        if field and bool not in kinds and kinds & {int, float}:
            bounded = any(isinstance(bound, Le | Lt) for bound in field.metadata)
            items = value.values() if isinstance(value, dict) else value
            for number in items if isinstance(value, list | tuple | dict) else [value]:
                _check_number(name, number, kinds, bounded)
        return value


def _check_number(name: str, number: Any, kinds: set[Any], bounded: bool) -> None:
    """Raise pydantic's error for a truth value, or for a number that is too large."""
    if isinstance(number, bool):
        raise PydanticCustomError("float_bool" if float in kinds else "int_bool", "a truth value is not a number")
    if isinstance(number, int | float) and not bounded:
        largest: float = LARGEST_SEED if name.endswith(("seed", "seeds")) else LARGEST
        largest = LARGEST_FLOAT if float in kinds else largest
        if abs(number) > largest and abs(number) != float("inf"):
            raise PydanticCustomError("less_than_equal", "too large", {"le": largest})


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types in an annotation: those of a union's members, of a list's items and a mapping's values."""
    if get_origin(annotation) is dict:
        return _kinds(get_args(annotation)[1])
    if get_origin(annotation) in (Union, UnionType, Annotated, list, tuple):
        return set().union(*(_kinds(part) for part in get_args(annotation)))
    return {annotation}
