"""Conversations as chat templates expect them: turns with `role` and `content`, whatever form they were written in."""

import json
from collections.abc import Mapping
from typing import Any

from continual.contract.columns import EmptyCell, kind_of, readable, unicode_text
from continual.contract.example import Turn
from continual.errors import ConfigurationError

WRITE_TURNS = "write [{role: user, content: ...}, {role: assistant, content: ...}]"
ROLES = {
    "system": "system", "developer": "developer",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "tool_response": "tool", "ipython": "ipython",
}  # fmt: skip
"""The roles of chat templates, by the names that files use for them."""
CALLS = ("function_call", "tool_call")
"""ShareGPT's names for a turn of the assistant that calls a tool, with the call as JSON text."""
NAMES = (("role", "content"), ("from", "value"), ("role", "value"), ("from", "content"))
"""The keys of a turn: those of chat templates, and ShareGPT's."""


def turns_of(option: str, column: str, value: Any) -> list[Turn]:
    """Return the turns of a conversation: a list of mappings, or such a list as JSON text.

    Args:
        option: The option that names the column, for messages.
        column: The column, for messages.
        value: What it holds.

    Raises:
        ConfigurationError: It is no list of turns, or a turn has no known role, or content that is not text.
    """
    listed = parsed(value)
    if not isinstance(listed, list):
        problem = f"`{column}` holds {kind_of(value)}, no list of turns with `role` and `content`"
        raise ConfigurationError(option, problem, WRITE_TURNS)
    return [_turn(option, f"turn {number} of `{column}`", turn) for number, turn in enumerate(listed, 1)]


def tools_of(option: str, column: str, value: Any) -> list[Any] | None:
    """Return the tools of a conversation, None for none: a list of mappings, or such a list as JSON text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    listed = parsed(value)
    if not isinstance(listed, list) or not all(isinstance(tool, Mapping) for tool in listed):
        problem = f"`{column}` holds {kind_of(value)}, no list of tools"
        raise ConfigurationError(option, problem, "write a list of JSON schemas, or name another column as `tools`")
    return [plain(tool) for tool in listed] or None


def parsed(value: Any) -> Any:
    """Return a list as a plain list, also one that is written as JSON text or held by numpy; else the value."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if type(value).__name__ == "ndarray":
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else value


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list that begins with a mapping, as a list of turns does."""
    listed = value.tolist() if type(value).__name__ == "ndarray" else value
    return isinstance(listed, list | tuple) and bool(listed) and isinstance(listed[0], Mapping)


def plain(value: Any) -> Any:
    """Return a nested value of dicts, lists, text, numbers, truth values and None. Raises ValueError for another."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if type(value).__name__ == "ndarray" or isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        return str(value) if isinstance(value, str) else value
    raise ValueError(f"{kind_of(value)} cannot be part of a conversation")


def _turn(option: str, place: str, turn: Any) -> Turn:
    if not isinstance(turn, Mapping):
        raise ConfigurationError(option, f"{place} is {kind_of(turn)}, not a mapping", WRITE_TURNS)
    names = next((pair for pair in NAMES if pair[0] in turn and pair[1] in turn), None)
    if names is None and "role" in turn and turn.get("tool_calls"):
        names = NAMES[0]
    if names is None:
        problem = f"{place} has no `role` and `content` (its keys: {', '.join(map(readable, turn)) or 'none'})"
        raise ConfigurationError(option, problem, WRITE_TURNS)
    written, content = turn[names[0]], turn.get(names[1])
    role = written.lower() if isinstance(written, str) else written
    if role in CALLS:
        return {"role": "assistant", "content": None, "tool_calls": [_call(option, place, content)]}
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(dict.fromkeys(ROLES.values()))
        shown = f"`{readable(written)}`" if isinstance(written, str) else kind_of(written)
        raise ConfigurationError(option, f"{place} has the role {shown}, which is unknown", f"use {known}")
    others = {str(key): value for key, value in turn.items() if key not in names and value is not None}
    return {"role": ROLES[role], "content": _content(option, place, content, turn), **_usable(others)}


def _content(option: str, place: str, content: Any, turn: Mapping[str, Any]) -> Any:
    if isinstance(content, str) and not isinstance(content, EmptyCell):
        return unicode_text(option, place, content)
    if content is None and turn.get("tool_calls"):
        return None
    if isinstance(content, list | tuple) or type(content).__name__ == "ndarray":
        return [_part(option, place, part) for part in content]
    raise ConfigurationError(option, f"{place} has {kind_of(content)} as content, not text", WRITE_TURNS)


def _part(option: str, place: str, part: Any) -> dict[str, str]:
    """Return one of the parts of which a content may consist: `{type: text, text: ...}`."""
    kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
    if kind == "text" and isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return {"type": "text", "text": unicode_text(option, place, part["text"])}
    problem = f"{place} has a part that is not text (`{readable(kind)}`)"
    raise ConfigurationError(option, problem, "keep parts of `type: text` alone: a language model reads nothing else")


def _call(option: str, place: str, content: Any) -> dict[str, Any]:
    try:
        call = json.loads(content) if isinstance(content, str) else plain(content)
        function = {"name": str(call["name"]), "arguments": call["arguments"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"{place} calls a tool, and is no JSON with `name` and `arguments`"
        raise ConfigurationError(option, problem, 'write {"name": ..., "arguments": {...}}') from error
    return {"type": "function", "function": function}


def _usable(others: dict[str, Any]) -> dict[str, Any]:
    """Return the other keys of a turn without those whose values no template can use, such as a date."""
    usable = {}
    for key, value in others.items():
        try:
            usable[key] = plain(value)
        except ValueError:
            continue
    return usable
