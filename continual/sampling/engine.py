"""What a sampling engine is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol

import numpy as np

from continual.config.schema import Generate
from continual.sampling.settings import SampleSettings
from continual.sampling.watchdog import watched

Sample = tuple[int, np.ndarray | None]
"""Sample number and its tokens (int32) after the prompt, or None for a failed request."""


class ModelShape(Protocol):
    """What an engine may know of a model before it is loaded."""

    @property
    def head_size(self) -> int | None:
        """Width of an attention head, None if unknown."""


class Engine(ABC):
    """Samples from a model in the cluster. Subclass it and register it under the entry point `continual.engines`."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions decide the samples."""

    def block(self, config: Generate) -> int:
        """Return how many consecutive samples, from a multiple on, are sampled together and depend on each other.

        A set has whole blocks. Where samples depend on their own number alone a block is one sample.
        """
        return 1

    def problem(self, facts: ModelShape, config: Generate) -> str | None:
        """Return why the engine cannot sample from a model here, as "problem; fix", or None."""
        return None

    @contextmanager
    def session(
        self, model: str, dtype: str, settings: SampleSettings, config: Generate
    ) -> Iterator[Callable[[list[int]], Iterator[Sample]]]:
        """Yield a function of sample numbers that does what `generate` does.

        It is called several times, until there are enough samples. Override it where what the first call starts can
        stay for the others. An engine that yields nothing for `config.still_seconds` has come to a stop.
        """
        yield lambda numbers: watched(self.generate(model, dtype, settings, numbers, config), config.still_seconds)

    @abstractmethod
    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        """Yield the samples `numbers`, in any order. Sample n must depend on `settings` and its block alone.

        Args:
            model: A model folder.
            dtype: The dtype that the model is loaded in.
            settings: Prompts, limits, temperature and seeds; `settings.tokens` bounds the context.
            numbers: Sample numbers, whole blocks (see `block`).
            config: Replicas and their CPUs and GPUs.
        """
