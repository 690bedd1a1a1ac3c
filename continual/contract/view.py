"""What a mitigation may know of a stage before and while it runs."""

from collections.abc import Callable
from dataclasses import dataclass

from continual.contract.models import ModelFacts

UNKNOWN_STEPS = 1000
"""Steps assumed for a stage that is measured in epochs, before its rows are counted; for estimates only."""


@dataclass(frozen=True)
class StageView:
    """One stage, without the rest of the configuration.

    Attributes:
        number: Counts from 1.
        name: The stage's name.
        steps: Optimizer steps; None before the rows of a stage in epochs are counted, never None while it runs.
        batch_rows: Rows of the task in every optimizer step, over all workers.
        row_tokens: Tokens in a packed row.
        strategy: How a step is spread over the workers (`train.strategy`).
        precision: In which the workers compute (`train.precision`).
        dtype: In which a model samples and scores (`model.dtype`).
        seed: The sequence's seed.
        random_start: Whether the sequence begins with random weights.
        has_prompts: Whether the stage's own documents may have prompts.
        start_tokens: The start tokens that earlier stages declare.
        facts: Return what is known of a pretrained model by its folder or hub id, or of the sequence's own model for
            None. Raises ConfigurationError for a model that cannot load.
    """

    number: int
    name: str
    steps: int | None
    batch_rows: int
    row_tokens: int
    strategy: str
    precision: str
    dtype: str
    seed: int
    random_start: bool
    has_prompts: bool
    start_tokens: tuple[str, ...]
    facts: Callable[[str | None], ModelFacts]

    def first(self, stage: int | None) -> int:
        """Return the stage in which a method begins: `stage`; None: 2 after random weights, else 1."""
        return stage or (2 if self.random_start else 1)

    def has_reached(self, first: int | None) -> bool:
        """Return whether this is the stage in which a method begins (see `first`) or a later one."""
        return self.number >= self.first(first)

    def replay_rows(self, ratio: float) -> int:
        """Return the rows that replay at `ratio` reads in the whole stage."""
        return self.replay_step(ratio) * (self.steps or UNKNOWN_STEPS)

    def replay_step(self, ratio: float) -> int:
        """Return the rows that replay at `ratio` reads in a step."""
        return round(ratio * self.batch_rows)
