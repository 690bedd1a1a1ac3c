"""JSON that runs have stored, read in one way: a file that a power cut or another program damaged is a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.errors import ContinualError
from continual.errors.json_text import read_bytes

MOST_BYTES = 256 << 20
"""Most bytes of a stored file of JSON; the largest are manifests of many shards."""


def parsed_json(content: bytes | str) -> Any:
    """Return what a text of JSON holds, None if it is none: cut off, of NULs, not UTF-8, or nested without end."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def stored_json(path: Path) -> Any:
    """Return what a stored file of JSON holds; None if that is no JSON, too much, or no file, such as a pipe.

    Raises FileNotFoundError and other OSErrors.
    """
    try:
        return parsed_json(read_bytes(path, MOST_BYTES))
    except ValueError:
        return None


def is_object(value: Any) -> bool:
    """Return whether a value of JSON is an object."""
    return isinstance(value, dict)


def read_json(path: Path, fix: str, good: Callable[[Any], bool] = is_object) -> Any:
    """Return what a stored file of JSON holds.

    Args:
        path: The file.
        fix: What to do if it is damaged.
        good: Whether a value is what was written there.

    Raises:
        ContinualError: The file is damaged, in one sentence with its name and `fix`.
    """
    value = stored_json(path)
    if not good(value):
        raise ContinualError(f"{path}: the stored file is damaged; {fix}")
    return value


def known_json(path: Path, good: Callable[[Any], bool] = is_object) -> dict[str, Any]:
    """Return what a file holds that is made again where it is lost, {} if it is missing or damaged."""
    try:
        value = stored_json(path)
    except OSError:
        return {}
    return value if good(value) else {}


def has(**fields: type | tuple[type, ...]) -> Callable[[Any], bool]:
    """Return whether a value of JSON is an object with these fields, each of one of the types given."""

    def good(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in fields.items())

    return good
