"""The configuration of a sequence: schema, loading with overrides, checks before anything starts."""

from continual.config.load import load_sequence
from continual.config.schema import Sequence, Source, Stage

__all__ = ["Sequence", "Source", "Stage", "load_sequence"]
