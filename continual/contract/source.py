"""Where documents come from, and what is learned of each. Imports neither torch nor ray."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from continual.contract.base import Strict
from continual.contract.columns import columns_of, template, text_of, value_of
from continual.contract.conversation import is_conversation, tools_of, turns_of
from continual.contract.example import Example
from continual.contract.reading import Beginning, beginning
from continual.contract.registry import SOURCES
from continual.contract.selection import Selection
from continual.errors import ConfigurationError
from continual.errors.budget import limited

Document = Mapping[str, Any]
Value = str | int | float | bool | None
FORMATS = ("messages", "prompt", "text")
"""What decides the format of a document that describes itself, the first one first."""
MOST_LOOKED_AT = 20_000
"""Documents that are passed over before a run in search of those that are asked for."""
FIRST_BYTES = 16 << 20
"""How much of a source is read for its first documents."""


class Source(Strict):
    """Where documents come from, and what is learned of them.

    Formats: `text` (loss on everything), `prompt` + `completion` (loss on the completion), `messages` (the
    tokenizer's chat template; loss on assistant turns). The keys name the columns of a document, or hold a template
    over columns, `prompt: "{instruction} {input}"`; those of a `python` source need no names if they are called
    `text`, `prompt` and `completion`, or `messages`. [data.md](data.md) has examples and what is counted.
    """

    path_options: ClassVar[dict[str, bool]] = {}
    """Options that hold a path, each with whether it may be a hub id instead; relative ones start at the YAML."""
    self_describing: ClassVar[bool] = False
    """Whether the fields of each document tell its format where no option does."""
    documents_key: ClassVar[str] = ""
    """The option that decides the documents, for messages about them."""

    type: str = Field(description="the kind of source, or the class of another package as `module:Class`")
    text: str | None = Field(None, description="column with running text, or a template")
    prompt: str | None = Field(None, description="column with the prompt (no loss), or a template")
    completion: str | None = Field(None, description="column with the completion (loss), or a template")
    messages: str | None = Field(None, description="column with a list of {role, content} or {from, value}")
    tools: str | None = Field(None, description="column with the tools of a conversation; null: `tools`, if there")
    where: dict[str, Value | list[Value]] = Field(
        default_factory=dict, description="use only the documents whose columns hold these values"
    )
    on_bad: Literal["refuse", "skip"] = Field(
        "refuse", description="a document that cannot be used ends the run before it starts, or is left out and counted"
    )
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
        for written in (self.text, self.prompt, self.completion):
            template(written or "")
        if self.messages and template(self.messages):
            raise ValueError("`messages` is the name of a column, not a template; use `prompt` and `completion`")
        if any(values == [] for values in self.where.values()):
            raise ValueError("`where` needs a value, or a list of values, for each column")
        return self

    @property
    def title(self) -> str:
        """What messages call the source."""
        return self.type

    @property
    def cuts(self) -> bool:
        """Whether documents that are longer than a row are cut, not dropped."""
        return self.overlong == "cut"

    def example(self, document: Document) -> Example:
        """Return what is learned of a document; the check, the estimate and the run all read it here.

        Raises:
            ConfigurationError: A column is missing, or does not hold what its option asks for; the key is the option.
        """
        kind = self._kind(document)
        if kind == "messages":
            column = self.messages or "messages"
            turns = turns_of(self._key("messages"), column, value_of(self._key("messages"), column, document))
            return Example("messages", messages=turns, tools=self._tools(document))
        if kind == "text":
            return Example("text", text=text_of(self._key("text"), self.text or "text", document))
        prompt, completion = self.prompt or "prompt", self.completion or "completion"
        if is_conversation(document.get(prompt)) and is_conversation(document.get(completion)):
            before = turns_of(self._key("prompt"), prompt, document[prompt])
            turns = turns_of(self._key("completion"), completion, document[completion])
            tools = self._tools(document)
            return Example("messages", messages=before + turns, tools=tools, learned_from=len(before))
        texts = [text_of(self._key("prompt"), prompt, document), text_of(self._key("completion"), completion, document)]
        return Example("prompt", prompt=texts[0], completion=texts[1])

    def _kind(self, document: Document) -> str:
        given = next((kind for kind in FORMATS if getattr(self, kind)), None)
        if given is None and self.self_describing:
            given = next((kind for kind in FORMATS if kind in document), None)
        return given or "text"

    def _key(self, option: str) -> str:
        return option if getattr(self, option) else self.documents_key

    def _tools(self, document: Document) -> list[Any] | None:
        if self.tools is not None:
            return tools_of("tools", self.tools, value_of("tools", self.tools, document))
        return tools_of(self._key("messages"), "tools", document.get("tools"))

    def columns(self) -> list[str]:
        """Return the columns that options name, `where` included; a document needs no others."""
        written = [self.text, self.prompt, self.completion, self.messages, self.tools]
        named = [column for option in written if option for column in columns_of(option)]
        return list(dict.fromkeys([*named, *self.where]))

    def selection(self) -> Selection:
        """Return which documents are asked for, with nothing met yet."""
        wanted = {column: values if isinstance(values, list) else [values] for column, values in self.where.items()}
        return Selection(wanted, dict.fromkeys(wanted, "where"))

    @property
    def has_prompts(self) -> bool:
        """Whether documents may have prompts; False for running text."""
        return not self.text

    @property
    def text_bytes(self) -> int | None:
        """The size of all running text, if the files hold nothing else; None otherwise."""
        return None

    def files(self) -> list[Path]:
        """Return the local files that are read, in their order; [] for a source without files."""
        return []

    def notes(self) -> list[str]:
        """Return what the user should know of the source before a run, each one sentence."""
        return []

    def pinned(self) -> Self:
        """Return the source with whatever may change elsewhere (a hub's branch) named as it is now."""
        return self

    def first(self, key: str, count: int) -> Beginning:
        """Return at most `count` documents from the beginning of the source, without Ray, read as the run reads them.

        Args:
            key: The source's key in the YAML, for messages.
            count: Most documents to read.

        Returns:
            Documents, spread over the first files; none if they can be read only while the sequence runs.

        Raises:
            ConfigurationError: The source is missing, empty, or damaged in what was read.
        """
        try:
            with limited(FIRST_BYTES):
                first = beginning(self, count, MOST_LOOKED_AT)
            if first.whole:
                first.selection.check(len(first.found))
            everything = first.whole or first.full
            if everything and first.skipped and not first.found:
                raise first.skipped[0]
            if everything and not first.found:
                raise ConfigurationError(self.documents_key, f"`{self.title}` has no documents", "put data there")
        except ConfigurationError as error:
            raise error.within(key) from error
        return first

    @abstractmethod
    def parts(self) -> list[str]:
        """Return what is read at a time, in a fixed order: the files, or [""] for a source that is read as a whole.

        Raises:
            ConfigurationError: The source is missing or empty; the key is an option of the source.
        """

    @abstractmethod
    def read(self, part: str) -> Iterator[tuple[str, Document | ConfigurationError]]:
        """Yield all documents of a part (`limit` and `where` aside) in a fixed order; runs in tasks of the cluster.

        Args:
            part: One of `parts()`.

        Yields:
            The place of a document for messages, such as `train.jsonl line 30`, and the document; or in its stead why
            it cannot be read, without its place.

        Raises:
            ConfigurationError: The part cannot be read on.
        """

    @abstractmethod
    def count(self) -> int | None:
        """Return about how many documents there are, `limit` and `where` aside; None if it takes too long to tell."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the documents and their format, JSON-able: files by content, functions by their code."""

    def watched(self) -> list[Path]:
        """Return the files that alone decide the documents; none if something else may decide them, too."""
        return []


SourceItem = Annotated[SerializeAsAny[Source], BeforeValidator(SOURCES.build)]
"""The type of an option that holds a data source of any registered kind."""
