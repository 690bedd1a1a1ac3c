"""JSON files that others wrote, read within bounds: a regular file, of limited size, depth and digits."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20
"""Most bytes of a file: the largest vocabularies have 35 MB."""
MOST_DEPTH = 100
"""How deep lists and mappings may lie in each other. What walks through them calls itself as often."""
MOST_DIGITS = 400
"""Digits of a whole number: more than any number that is used, fewer than Python's own limit."""


class TooMuch(ValueError):
    """A text, or a file, that goes beyond a bound."""


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise TooMuch(f"a number of {len(text):,} digits")
    return int(text)


_decoder = json.JSONDecoder(parse_int=_whole)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError, whose text is on one line, for a bad or an excessive one."""
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise TooMuch(f"nested more than {MOST_DEPTH} deep") from None
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Raise TooMuch for a value that is nested more than MOST_DEPTH deep."""
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH + 1):
        level = [item for holder in level for item in _items(holder) if isinstance(item, dict | list)]
        if not level:
            return
    raise TooMuch(f"nested more than {MOST_DEPTH} deep")


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def load_json(path: str | Path, most: int = MOST_BYTES) -> Any:
    """Return the value in a JSON file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, exceeds a bound, or is a pipe or a device, which reading might never finish.
    """
    return parse_json(read_bytes(path, most).decode("utf-8"))


def read_bytes(path: str | Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes; raise OSError or ValueError."""
    if Path(path).exists() and not Path(path).is_file():
        raise TooMuch("it is not a file")
    with Path(path).open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise TooMuch(f"it has more than {most >> 10:,} KiB")
    return data
