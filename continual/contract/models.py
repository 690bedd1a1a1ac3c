"""References to models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelRef:
    """A folder that `AutoModelForCausalLM.from_pretrained` loads, and the hash of its content."""

    path: str
    hash: str


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded; None where only loading it would tell.

    Attributes:
        chat_template: Whether its tokenizer has a chat template.
        positions: The longest context in tokens.
        cannot_sample: Why the configured engine cannot sample from it, or None.
    """

    chat_template: bool | None = None
    positions: int | None = None
    cannot_sample: str | None = None
