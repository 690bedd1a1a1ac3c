"""Checks of data sources: they exist, they can be read, and their first documents have the fields asked for."""

from typing import Any

from continual.contract.source import Document, Source
from continual.errors import ConfigurationError, nearest

FIRST = 20
"""Documents that are checked."""


def check_source(key: str, source: Source, chat_template: bool | None) -> list[str]:
    """Return notes about the source at `key`; `chat_template` says whether the tokenizer has one, None if unknown.

    Raises ConfigurationError for a source that cannot be used.
    """
    documents = source.first(key, min(FIRST, source.limit or FIRST))
    for number, document in enumerate(documents, 1):
        _check_document(key, source, document, number)
    chats = [document for document in documents if source.format_of(document).kind == "messages"]
    if (source.messages or chats) and chat_template is False:
        problem = "`messages` need a chat template, and the model's tokenizer has none"
        raise ConfigurationError(key, problem, "add one to tokenizer_config.json, or use `prompt` and `completion`")
    if chats and not any(_has_answer(source, document) for document in chats):
        problem = f"none of the first {len(chats)} conversations has an assistant's turn to learn from"
        raise ConfigurationError(key, problem, "use the roles `user` and `assistant`")
    if not documents:
        return [f"`{source.title}` is not read before the run: the fields of its documents are checked then"]
    return []


def _check_document(key: str, source: Source, document: Document, number: int) -> None:
    form = source.format_of(document)
    for field in form.fields:
        place = f"{key}.{source.option_of(field)}".rstrip(".")
        if field not in document:
            known = sorted(str(name) for name in document)
            near = nearest(field, known)
            fix = f"did you mean `{near}`?" if near else f"its fields are: {', '.join(known) or 'none'}"
            raise ConfigurationError(place, f"document {number} has no field `{field}`", fix)
        value = document[field]
        if form.kind == "messages":
            _check_messages(place, value, number)
        elif value is None or isinstance(value, dict | list | tuple):
            kind = "null" if value is None else f"a {type(value).__name__}"
            problem = f"document {number} has {kind} in `{field}`, not text"
            raise ConfigurationError(place, problem, "name a column with text")


def _check_messages(key: str, value: Any, number: int) -> None:
    turns = value if isinstance(value, list | tuple) else [None]
    if not all(isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns):
        problem = f"document {number} has no list of turns with `role` and `content`"
        raise ConfigurationError(key, problem, "write [{role: user, content: ...}, {role: assistant, content: ...}]")


def _has_answer(source: Source, document: Document) -> bool:
    [field] = source.format_of(document).fields
    return any(turn["role"] == "assistant" for turn in document[field] or [])
