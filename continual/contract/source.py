"""Where documents come from, and which of three formats a document has. Imports neither torch nor ray."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from continual.contract.base import Strict
from continual.contract.example import Example
from continual.contract.registry import SOURCES
from continual.errors import ConfigurationError

if TYPE_CHECKING:
    import ray.data

Document = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """What is learned of a document, and the fields that hold it.

    `text`: one field, learned whole. `prompt`: two fields, of which the second is learned. `messages`: one field with
    a list of turns, of which the assistant's are learned.
    """

    kind: Literal["text", "prompt", "messages"]
    fields: tuple[str, ...]


class Source(Strict):
    """Where documents come from, and what is learned of them.

    Formats: `text` (loss on everything), `prompt` + `completion` (loss on the completion), `messages` (the
    tokenizer's chat template; loss on assistant turns). The keys name the fields of a document; those of a `python`
    source need no names if they are called `text`, `prompt` and `completion`, or `messages`.
    """

    path_options: ClassVar[dict[str, bool]] = {}
    """Options that hold a path, each with whether it may be a hub id instead; relative ones start at the YAML."""
    self_describing: ClassVar[bool] = False
    """Whether the fields of each document tell its format where no option does."""

    type: str = Field(description="the kind of source, or the class of another package as `module:Class`")
    text: str | None = Field(None, description="column with running text")
    prompt: str | None = Field(None, description="column with the prompt (no loss)")
    completion: str | None = Field(None, description="column with the completion (loss)")
    messages: str | None = Field(None, description="column with a list of {role, content}")
    limit: int | None = Field(None, ge=1, description="use only the first so many documents")
    overlong: Literal["drop", "cut"] | None = Field(
        None, description="documents longer than `train.row_tokens`; null: cut for type text, else drop"
    )
    end_token: bool = Field(True, description="append the end-of-text token to every uncut document")

    @model_validator(mode="after")
    def _one_format(self) -> "Source":
        if bool(self.prompt) != bool(self.completion):
            raise ValueError("`prompt` and `completion` go together; for running text use `text`")
        given = [key for key in ("text", "prompt", "messages") if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"choose one format: {' or '.join(given)}")
        return self

    @property
    def title(self) -> str:
        """What messages call the source."""
        return self.type

    @property
    def cuts(self) -> bool:
        """Whether documents that are longer than a row are cut, not dropped."""
        return self.overlong == "cut"

    def format_of(self, document: Document) -> Format:
        """Return the format of a document; the check, the estimate and the run all ask here."""
        free = self.self_describing and not (self.text or self.prompt or self.messages)
        if self.messages or (free and "messages" in document):
            return Format("messages", (self.messages or "messages",))
        if self.prompt or (free and "prompt" in document):
            return Format("prompt", (self.prompt or "prompt", self.completion or "completion"))
        return Format("text", (self.text or "text",))

    def example(self, document: Document) -> Example:
        """Return what is learned of a document; the check, the estimate and the run all read it here.

        Raises:
            ConfigurationError: The document lacks a field that an option names.
        """
        form = self.format_of(document)
        values = []
        for name in form.fields:
            if name not in document:
                has = f"it has {', '.join(sorted(document))}"
                raise ConfigurationError(name, f"a document has no field `{name}`", has)
            values.append(document[name])
        if form.kind == "messages":
            return Example("messages", messages=values[0])
        if form.kind == "prompt":
            return Example("prompt", prompt=str(values[0]), completion=str(values[1]))
        return Example("text", text=str(values[0]))

    @property
    def has_prompts(self) -> bool:
        """Whether documents may have prompts; False for running text."""
        return not self.text

    def option_of(self, field: str) -> str:
        """Return the option that asks for a field of the documents, for messages; "" if there is none."""
        options = ("text", "prompt", "completion", "messages")
        return next((option for option in options if getattr(self, option) == field), "")

    @property
    def text_bytes(self) -> int | None:
        """The size of all running text, if the files hold nothing else; None otherwise."""
        return None

    def files(self) -> list[Path]:
        """Return the local files that are read, in their order; [] for a source without files."""
        return []

    @abstractmethod
    def first(self, key: str, count: int) -> list[Document]:
        """Return at most `count` documents from the beginning of the source, without Ray.

        Args:
            key: The source's key in the YAML, for messages.
            count: Most documents to read.

        Returns:
            Documents, spread over the first files; [] if they can be read only while the sequence runs.

        Raises:
            ConfigurationError: The source is missing, empty, or damaged in what was read.
        """

    @abstractmethod
    def count(self) -> int | None:
        """Return about how many documents there are, `limit` aside; None if that takes too long to tell."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the documents and their format, JSON-able: files by content, functions by their code."""

    @abstractmethod
    def documents(self) -> "ray.data.Dataset":
        """Return all documents (`limit` aside) in a fixed order: column `item`, one JSON object per document."""


SourceItem = Annotated[SerializeAsAny[Source], BeforeValidator(SOURCES.build)]
"""The type of an option that holds a data source of any registered kind."""
