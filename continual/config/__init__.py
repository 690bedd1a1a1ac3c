"""The configuration of a sequence: schema, loading with overrides, checks before anything starts."""

from continual.config.schema import Sequence, Stage

__all__ = ["Sequence", "Stage"]
