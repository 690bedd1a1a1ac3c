"""Conversations as chat templates expect them: turns with `role` and `content`, whatever form they were written in."""

import json
import math
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
KEPT = ("tool_calls", "tool_call_id", "reasoning_content", "thinking", "reasoning", "name", "weight")
"""Other keys of a turn that decide what is trained: they are never left out."""
NOT_UTF_8 = "text that is not UTF-8"
WRITE_JSON = "write it as JSON has it: text, a number, true, false, null, a list, or a mapping"


def turns_of(option: str, column: str, value: Any) -> list[Turn]:
    """Return the turns of a conversation: a list of mappings, or such a list as JSON text.

    Args:
        option: The option that names the column, for messages.
        column: The column, for messages.
        value: What it holds.

    Raises:
        ConfigurationError: It is not a list of turns, or a turn has an unknown role, or content that is not text.
    """
    listed = parsed(value)
    if not isinstance(listed, list):
        problem = f"`{column}` holds {kind_of(value)}, not a list of turns with `role` and `content`"
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
    return [_plain(option, f"`{column}`", tool, f"[{number}]") for number, tool in enumerate(listed)] or None


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
    """Return whether a value is a list that begins with a mapping, or JSON text of a list of turns."""
    listed = parsed(value)
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], Mapping):
        return False
    # Other lists as JSON text are text like any other, such as the answers of a task that asks for JSON.
    return not isinstance(value, str) or all(isinstance(turn, Mapping) and _names(turn) for turn in listed)


def plain(value: Any, path: str = "") -> Any:
    """Return a nested value as JSON has it: of dicts, lists, text, finite numbers, truth values and None.

    Raises:
        ValueError: A part of it is none of these; the arguments are its path and the words for what it holds.
    """
    if isinstance(value, Mapping):
        return {plain(str(key), path): plain(item, f"{path}.{readable(key)}" if path else readable(key))
                for key, item in value.items()}  # fmt: skip
    if type(value).__name__ == "ndarray" or isinstance(value, list | tuple):
        return [plain(item, f"{path}[{number}]") for number, item in enumerate(value)]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(path, NOT_UTF_8) from None
        return str(value)
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(path, "a Decimal" if type(value).__name__ == "Decimal" else kind_of(value))


def _plain(option: str, place: str, value: Any, path: str) -> Any:
    try:
        return plain(value, path)
    except ValueError as error:
        raise _no_json(option, place, error) from error


def _no_json(option: str, place: str, error: ValueError) -> ConfigurationError:
    path, kind = error.args
    fix = "save it as UTF-8" if kind == NOT_UTF_8 else WRITE_JSON
    return ConfigurationError(option, f"{place} holds {kind} in `{path}`", fix)


def _turn(option: str, place: str, turn: Any) -> Turn:
    if not isinstance(turn, Mapping):
        raise ConfigurationError(option, f"{place} is {kind_of(turn)}, not a mapping", WRITE_TURNS)
    names = _names(turn)
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
    calls = _called(option, place, others) if ROLES[role] == "assistant" or "tool_calls" in others else {}
    return {
        "role": ROLES[role],
        "content": _content(option, place, content, bool(calls.get("tool_calls"))),
        **_usable(option, place, others),
        **calls,
    }


def _names(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of a turn's role and content; a call of a tool needs no content. None: it has no such keys."""
    names = next((pair for pair in NAMES if pair[0] in turn and pair[1] in turn), None)
    calls = any(turn.get(key) is not None for key in ("tool_calls", "function_call"))
    return NAMES[0] if names is None and "role" in turn and calls else names


def _content(option: str, place: str, content: Any, calls: bool) -> Any:
    if isinstance(content, str) and not isinstance(content, EmptyCell):
        return unicode_text(option, place, content)
    if content is None and calls:
        return None
    if isinstance(content, list | tuple) or type(content).__name__ == "ndarray":
        return [_part(option, place, part) for part in content]
    raise ConfigurationError(option, f"{place} has {kind_of(content)} as content, not text", WRITE_TURNS)


def _part(option: str, place: str, part: Any) -> dict[str, str]:
    """Return one of the parts of which a content may consist: `{type: text, text: ...}`, or the text alone."""
    part = {"type": "text", "text": part} if isinstance(part, str) else part
    kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
    if kind == "text" and isinstance(part, Mapping):
        if isinstance(part.get("text"), str):
            return {"type": "text", "text": unicode_text(option, place, part["text"])}
        problem = f"{place} has a part of `type: text` that holds {kind_of(part.get('text'))}, not text"
        raise ConfigurationError(option, problem, "write {type: text, text: ...}")
    problem = f"{place} has a part that is not text (`{readable(kind)}`)"
    raise ConfigurationError(option, problem, "keep parts of `type: text` alone: a language model reads nothing else")


def _called(option: str, place: str, others: dict[str, Any]) -> dict[str, Any]:
    """Take the calls of tools out of a turn's other keys and return them as `tool_calls`, {} if it has none.

    `function_call` is OpenAI's earlier name for one call.
    """
    single, several = others.pop("function_call", None), others.pop("tool_calls", None)
    if several is None:
        return {"tool_calls": [_call(option, place, single)]} if single else {}
    calls = parsed(several)
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        problem = f"{place} has {kind_of(several)} as `tool_calls`, not a list of calls"
        raise ConfigurationError(option, problem, "write [{type: function, function: {name: ..., arguments: {...}}}]")
    if calls and single:
        problem = f"{place} has both `tool_calls` and `function_call`"
        raise ConfigurationError(option, problem, "keep `tool_calls` alone")
    if single:
        return {"tool_calls": [_call(option, place, single)]}
    made = _plain(option, place, calls, "tool_calls")
    for number, call in enumerate(made):
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            problem = f"{place} has a call without a function's name in `tool_calls[{number}]`"
            raise ConfigurationError(option, problem, "write {type: function, function: {name: ..., arguments: {...}}}")
        _check_arguments(option, place, function, f"tool_calls[{number}].arguments")
    return {"tool_calls": made}


def _call(option: str, place: str, content: Any) -> dict[str, Any]:
    try:
        call = json.loads(content) if isinstance(content, str) else content
        function = {"name": str(call["name"]), "arguments": call["arguments"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"{place} calls a tool, but its content is not JSON with `name` and `arguments`"
        raise ConfigurationError(option, problem, 'write {"name": ..., "arguments": {...}}') from error
    function = _plain(option, place, function, "function_call")
    _check_arguments(option, place, function, "function_call.arguments")
    return {"type": "function", "function": function}


def _check_arguments(option: str, place: str, function: Any, path: str) -> None:
    """Check what arguments that are written as JSON text hold: templates may read it."""
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return
        _plain(option, place, arguments, path)


def _usable(option: str, place: str, others: dict[str, Any]) -> dict[str, Any]:
    """Return the other keys of a turn, without those that no template reads and whose value it could not, as a date."""
    usable = {}
    for key, value in others.items():
        try:
            usable[plain(key)] = plain(value, key)
        except ValueError as error:
            if key in KEPT or error.args[1] == NOT_UTF_8:
                raise _no_json(option, place, error) from error
    return usable
