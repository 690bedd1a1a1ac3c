"""The base of every model in the configuration."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen model that refuses unknown keys: a typo must never silently fall back to a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    renamed: ClassVar[dict[str, str]] = {}
    """Former names of keys, old to new. They still work in a YAML and on the command line, with a note."""
