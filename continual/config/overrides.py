"""Dotted overrides from the command line: `train.learning_rate=1e-5`, `mitigation=[]`, `stages.1.steps=5`."""

from dataclasses import dataclass
from typing import Any

from continual.config.yaml_text import kind_name, parse_yaml
from continual.errors import ConfigurationError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Override:
    """An override as typed, the path that it sets (positions in lists as numbers) and the value."""

    text: str
    path: KeyPath
    value: Any


def dotted(path: KeyPath) -> str:
    """Return a path as users write it, e.g. `stages.0.steps`."""
    return ".".join(str(part) for part in path)


def shortened(text: str) -> str:
    """Return an override for a message: on one line, its beginning where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def apply_override(raw: dict[str, Any], text: str) -> Override:
    """Set one value in `raw`, creating sections that are missing.

    The schema decides later whether the key is known.

    Args:
        raw: The mapping from the YAML file; changed in place.
        text: The override as typed, `dotted.key=value` with the value as YAML.

    Returns:
        The override with its path and value.

    Raises:
        ConfigurationError: The text has no `=`, the value is not valid YAML, or a list has no such position. Its `file`
            is the override.
    """
    key, equals, value_text = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise _error(text, "", "this is not an override", "write `key.of.the.sequence=value`")
    try:
        value = parse_yaml(value_text)
    except ConfigurationError as error:
        raise _error(text, key, f"the value cannot be read ({error.problem})", "quote it as YAML text") from error
    container: Any = raw
    path: list[str | int] = []
    for name in names[:-1]:
        step = _step(text, container, path, name)
        path.append(step)
        if isinstance(step, str) and container.get(step) is None:
            container[step] = {}
        container = container[step]
    step = _step(text, container, path, names[-1])
    container[step] = value
    return Override(text, (*path, step), value)


def _step(text: str, container: Any, path: list[str | int], name: str) -> str | int:
    """Return `name` as a key of the mapping at `path`, or as a position in the list there."""
    place = dotted(tuple(path)) or "the sequence"
    if isinstance(container, list):
        if not name.isdecimal() or int(name) >= len(container):
            count = len(container)
            have = f"{count} {'entry' if count == 1 else 'entries'}, counted from 0" if count else "no entries"
            problem = f"`{name}` is not a position in `{place}`, which has {have}"
            fix = "use one of them" if count else f"set `{place}` as a whole"
            raise _error(text, dotted((*path, name)), problem, fix)
        return int(name)
    if not isinstance(container, dict):
        problem = f"`{place}` is a {kind_name(container)} and has no key `{name}`"
        raise _error(text, dotted((*path, name)), problem, f"set `{place}` as a whole")
    if name.isdecimal() and not container and path:
        problem = f"`{place}` is not given and has no position {name}"
        raise _error(text, dotted((*path, name)), problem, f"set `{place}` as a whole")
    return name


def _error(text: str, key: str, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(key, problem, fix, f"override `{shortened(text)}`")
