"""What is learned of one document, whatever file or function it came from. Imports neither torch nor ray."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

Turn = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """A document as training reads it: checked, and JSON-able.

    Attributes:
        kind: `text`: learned whole. `prompt`: of `prompt` and `completion`, the second is learned. `messages`: the
            assistant's turns are learned.
        text: Running text.
        prompt: What comes before the completion.
        completion: What is learned.
        messages: The turns of a conversation, each with `role` and `content` as chat templates expect them.
        tools: The tools that the chat template lists, or None.
        learned_from: The number of the first turn that may be learned; turns before it are context.
    """

    kind: Literal["text", "prompt", "messages"]
    text: str = ""
    prompt: str = ""
    completion: str = ""
    messages: list[Turn] = field(default_factory=list)
    tools: list[Any] | None = None
    learned_from: int = 0

    @property
    def has_answer(self) -> bool:
        """Whether there is an answer to learn; a conversation may have none."""
        turns = self.messages[self.learned_from :]
        return self.kind != "messages" or any(turn["role"] == "assistant" for turn in turns)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are not empty; `Example(**fields)` is the example again."""
        return {key: value for key in FIELDS if (value := getattr(self, key)) or key == "kind"}


FIELDS = tuple(field.name for field in fields(Example))
