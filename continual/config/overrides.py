"""Dotted overrides from the command line: `train.learning_rate=1e-5`, `mitigation=[]`, `stages.1.steps=5`."""

from dataclasses import dataclass
from typing import Any

from continual.config.yaml_text import kind_name, parse_yaml
from continual.errors import ConfigurationError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Override:
    """An override as typed, the place it sets (positions of lists as numbers) and the value."""

    text: str
    path: KeyPath
    value: Any


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def apply_override(raw: dict[str, Any], text: str) -> Override:
    """Sets one value in `raw`, making sections that are not there yet.

    Whether the key is known is decided later, with everything else, by the schema. Raises ConfigurationError, with the
    override as its `file`, for text without `=`, a value that is no YAML, and a position that a list does not have.
    """
    key, equals, value_text = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise _error(text, "", "this is no override", "write `key.of.the.sequence=value`")
    try:
        value = parse_yaml(value_text)
    except ConfigurationError as error:
        raise _error(text, key, f"the value cannot be read ({error.problem})", "quote it as YAML text") from error
    at: Any = raw
    path: list[str | int] = []
    for name in names[:-1]:
        step = _step(text, at, path, name)
        path.append(step)
        if isinstance(step, str) and at.get(step) is None:
            at[step] = {}
        at = at[step]
    step = _step(text, at, path, names[-1])
    at[step] = value
    return Override(text, (*path, step), value)


def _step(text: str, at: Any, path: list[str | int], name: str) -> str | int:
    """`name` as a key of the mapping, or a position in the list, that stands at `path`."""
    place = dotted(tuple(path)) or "the sequence"
    if isinstance(at, list):
        if not name.isdecimal() or int(name) >= len(at):
            have = f"{len(at)} {'entry' if len(at) == 1 else 'entries'}, counted from 0" if at else "no entries"
            problem = f"`{name}` is no position in `{place}`, which has {have}"
            raise _error(text, dotted((*path, name)), problem, "use one of them" if at else f"set `{place}` as a whole")
        return int(name)
    if not isinstance(at, dict):
        problem = f"`{place}` is a {kind_name(at)} and has no key `{name}`"
        raise _error(text, dotted((*path, name)), problem, f"set `{place}` as a whole")
    if name.isdecimal() and not at and path:
        problem = f"`{place}` is not given and has no position {name}"
        raise _error(text, dotted((*path, name)), problem, f"set `{place}` as a whole")
    return name


def _error(text: str, key: str, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(key, problem, fix, f"override `{text}`")
