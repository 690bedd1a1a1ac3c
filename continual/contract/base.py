"""The base of every model in the configuration."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen model that refuses unknown keys: a typo must never silently fall back to a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
