"""Define the YAML of a sweep as pydantic models and load it. Imports neither torch nor ray."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from continual.config.overrides import apply_override
from continual.config.paths import expanded
from continual.config.problems import explain
from continual.config.schema import LONGEST_NAME, NAME, Strict
from continual.config.yaml_text import read_yaml
from continual.errors import secrets_in

S = TypeVar("S", bound=Strict)
FIXED = ("name", "seed", "storage", "track")
"""Keys of a sequence that are the same for all trials, or set by the sweep itself."""


class Dimension(Strict):
    """The values that a swept key may take; exactly one of these fields is set."""

    choice: list[Any] | None = Field(None, min_length=1, description="one of these; `search: grid` runs them all")
    grid: list[Any] | None = Field(None, min_length=1, description="each of these, with every draw of the other keys")
    uniform: tuple[float, float] | None = Field(None, description="a number between these bounds")
    loguniform: tuple[float, float] | None = Field(None, description="the same, uniform in the number's logarithm")
    named: dict[str, Any] | None = Field(None, min_length=1, description="a choice whose values have names")

    @model_validator(mode="after")
    def _check(self) -> "Dimension":
        given = [key for key in Dimension.model_fields if getattr(self, key) is not None]
        if len(given) != 1:
            problem = f"{' and '.join(f'`{key}`' for key in given)} exclude each other" if given else "nothing is given"
            raise ValueError(f"{problem}; write one of {', '.join(Dimension.model_fields)}")
        low, high = self.bounds or (1.0, 2.0)
        if not low < high:
            raise ValueError(f"{low:g} is not below {high:g}; write the lower number first")
        if self.loguniform and low <= 0:
            raise ValueError(f"{low:g} has no logarithm; write numbers above 0")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ends of a continuous dimension; None for a finite one."""
        return self.uniform or self.loguniform

    @property
    def values(self) -> list[Any]:
        """The values of a finite dimension: of a `named` one the names."""
        return list(self.choice or self.grid or self.named or ())

    def holds(self, value: Any) -> bool:
        """Return whether `value` lies in this dimension."""
        if self.bounds:
            return isinstance(value, int | float) and self.bounds[0] <= value <= self.bounds[1]
        return value in self.values


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Ablation(Strict):
    """A base sequence, the keys that are changed in it, and the way through their values."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME, description="names the sweep, its folder, and its trials")
    sequence: str = Field(description="YAML of the base sequence, relative to this file")
    space: dict[str, Dimension] = Field(default_factory=dict, description="swept keys of the sequence, dotted")
    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="every point is run under each of these; null: the sequence's own seed"
    )
    metric: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1, max_length=2)] = Field(
        default_factory=lambda: ["average_score"],
        description="one figure or score, or two; the first chooses the best point, which without it is the trade-off",
    )
    scheduler: Literal["none", "asha"] = Field("none", description="asha: stop trials that score low after a stage")
    reduction_factor: float = Field(2.0, gt=1, description="asha: the best 1 / reduction_factor of a rung continue")
    search: Literal["grid", "random", "optuna"] = Field("grid", description="how points of the space are chosen")
    trials: int | None = Field(None, ge=1, description="random, optuna: points to draw, each run under every seed")
    search_seed: int = Field(0, ge=0, le=4_000_000, description="random, optuna: decides the points")
    concurrency: int = Field(1, ge=1, description="trials at the same time")
    fail_fast: bool = Field(False, description="end the sweep when a trial fails")

    @property
    def trade_off(self) -> bool:
        """Whether the best point is the one that trades old against new best: no metric was chosen."""
        return "metric" not in self.model_fields_set

    @field_validator("space")
    @classmethod
    def _keys(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        for key, dimension in space.items():
            if secrets_in({key: dimension.model_dump(exclude_none=True)}):
                problem = f"`{key}`: a swept value holds a password or token, and tables show what is swept"
                raise ValueError(f"{problem}; export it (HF_TOKEN, MLFLOW_TRACKING_PASSWORD)")
            first = key.split(".", maxsplit=1)[0]
            if first in FIXED:
                fix = "list the seeds under `seeds`" if first == "seed" else "leave it out"
                raise ValueError(f"`{key}` cannot be swept; {fix}")
        return space

    @field_validator("seeds", "metric")
    @classmethod
    def _distinct(cls, entries: list[Any] | None) -> list[Any] | None:
        if entries is not None and len(set(entries)) < len(entries):
            raise ValueError("an entry is listed twice; give each one once")
        return entries

    @model_validator(mode="after")
    def _search(self) -> "Ablation":
        if (self.search == "grid") != (self.trials is None):
            if self.trials:
                raise ValueError("`search: grid` runs every point; leave `trials` out, or write `search: random`")
            raise ValueError(f"`search: {self.search}` needs a number of points; write `trials: n`")
        for key, dimension in self.space.items():
            if self.search == "grid" and dimension.bounds:
                raise ValueError(f"`space.{key}` is continuous; write `search: random` or `optuna`, or a `grid`")
            if self.search == "optuna" and dimension.grid is not None:
                raise ValueError(f"`space.{key}`: `search: optuna` chooses by itself; write `choice` instead of `grid`")
        if self.search != "grid" and not any(d.grid is None for d in self.space.values()):
            raise ValueError(f"`search: {self.search}` has nothing to draw; write `search: grid`")
        return self


@dataclass(frozen=True)
class LoadedAblation:
    """A valid sweep and where it came from.

    `file` is its name in messages and `folder` the folder that holds it. `base` is the path of the base sequence's
    YAML, `overrides` are those of the command line for every sequence.
    """

    ablation: Ablation
    file: str
    folder: Path
    base: str
    overrides: list[str]


def load_ablation(path: str | Path, arguments: Sequence[str] = ()) -> LoadedAblation:
    """Read and validate a sweep; pass `key=value` arguments on to the base sequence if the sweep has no such key.

    Raises ConfigurationError with file, dotted key and fix.
    """
    ablation, rest = load_about(Ablation, path, arguments)
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100  links stay, as for a sequence
    return LoadedAblation(ablation, str(path), folder, base_of(folder, ablation.sequence), rest)


def load_about(schema: type[S], path: str | Path, arguments: Sequence[str]) -> tuple[S, list[str]]:
    """Read and validate a YAML about a base sequence; return it, and those arguments that are for the sequence.

    Raises ConfigurationError with file, dotted key and fix.
    """
    file = str(path)
    raw = read_yaml(Path(os.path.abspath(path)), file)  # noqa: PTH100
    own = [text for text in arguments if text.partition("=")[0].strip().split(".")[0] in schema.model_fields]
    applied = [apply_override(raw, text) for text in own]
    try:
        return schema.model_validate(raw), [text for text in arguments if text not in own]
    except ValidationError as error:
        raise explain(error, schema, raw, file, applied) from error


def base_of(folder: Path, sequence: str) -> str:
    """Return the path of a base sequence that a YAML in `folder` names."""
    return os.path.relpath(folder / expanded(sequence))
