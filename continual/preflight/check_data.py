"""Checks of data sources: they are there, they can be read, and their first documents have what is asked of them."""

import json
import os
from pathlib import Path
from typing import Any

from continual.config.schema import Source
from continual.errors import ConfigurationError, nearest, one_line
from continual.preflight.documents import Document, first_documents, hub_folder

FIRST = 20
"""Documents that are looked at."""


def check_source(key: str, source: Source, chat_template: bool | None) -> list[str]:
    """Notes about the source at `key`; `chat_template` says whether the tokenizer has one, None if unknown.

    Raises ConfigurationError for a source that cannot be used.
    """
    notes = _check_hub(key, source) if source.type == "hub" else []
    documents = first_documents(key, source, FIRST)
    for number, document in enumerate(documents, 1):
        _check_document(key, source, document, number)
    chat = bool(source.messages) or (source.type == "python" and any("messages" in one for one in documents))
    if chat and chat_template is False:
        problem = "`messages` need a chat template, and the model's tokenizer has none"
        raise ConfigurationError(key, problem, "add one to tokenizer_config.json, or use `prompt` and `completion`")
    if chat and documents and not any(_has_answer(source, document) for document in documents):
        problem = f"none of the first {len(documents)} conversations has an assistant's turn to learn from"
        raise ConfigurationError(key, problem, "use the roles `user` and `assistant`")
    return notes


def fields(source: Source, document: Document) -> list[str]:
    """The keys that a document must have; for python sources the document's own keys decide its format."""
    python = source.type == "python"
    if source.messages or (python and not source.text and not source.prompt and "messages" in document):
        return [source.messages or "messages"]
    if source.prompt or (python and not source.text and "prompt" in document):
        return [source.prompt or "prompt", source.completion or "completion"]
    return [source.text or "text"]


def _check_document(key: str, source: Source, document: Document, number: int) -> None:
    wanted = fields(source, document)
    for name in wanted:
        if name not in document:
            have = ", ".join(sorted(str(known) for known in document)) or "none"
            near = nearest(name, [str(known) for known in document])
            fix = f"did you mean `{near}`?" if near else f"its fields are: {have}"
            raise ConfigurationError(_field_key(key, source, name), f"document {number} has no field `{name}`", fix)
        value = document[name]
        if source.messages == name or name == "messages":
            _check_messages(_field_key(key, source, name), value, number)
        elif value is None or isinstance(value, dict | list | tuple):
            kind = "null" if value is None else f"a {type(value).__name__}"
            problem = f"document {number} has {kind} in `{name}`, not text"
            raise ConfigurationError(_field_key(key, source, name), problem, "name a column with text")


def _field_key(key: str, source: Source, name: str) -> str:
    for option in ("text", "prompt", "completion", "messages"):
        if getattr(source, option) == name:
            return f"{key}.{option}"
    return f"{key}.rows" if source.type == "python" else key


def _check_messages(key: str, value: Any, number: int) -> None:
    turns = value if isinstance(value, list | tuple) else [None]
    if not all(isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns):
        problem = f"document {number} has no list of turns with `role` and `content`"
        raise ConfigurationError(key, problem, "write [{role: user, content: ...}, {role: assistant, content: ...}]")


def _has_answer(source: Source, document: Document) -> bool:
    turns = document.get(source.messages or "messages") or []
    return any(turn["role"] == "assistant" for turn in turns)


def offline() -> bool:
    """Whether the Hugging Face libraries have been told to use no network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _check_hub(key: str, source: Source) -> list[str]:
    folder = hub_folder(key, source)
    if folder is None:
        if offline():
            problem = f"`{source.path}` is no local folder, and HF_HUB_OFFLINE forbids to fetch it"
            raise ConfigurationError(f"{key}.path", problem, "give a local folder or unset HF_HUB_OFFLINE")
        return [f"data set `{source.path}` comes from the hub: its fields are checked when it is read"]
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        known = _read_json(f"{key}.path", splits).get("splits", [])
        if source.split not in known:
            near = nearest(source.split, known)
            fix = f"did you mean `{near}`?" if near else f"it has {', '.join(known)}"
            raise ConfigurationError(f"{key}.split", f"{folder} has no split `{source.split}`", fix)
    elif not any(folder.iterdir()):
        raise ConfigurationError(f"{key}.path", f"the folder {folder} is empty", "put the data set there")
    return []


def _read_json(key: str, path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(key, f"{path} is damaged ({one_line(error)})", "save the data set again") from error
