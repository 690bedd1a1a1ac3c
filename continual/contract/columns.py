"""Text from the columns of a document: what counts as text, and templates over several columns."""

import json
import math
import string
from collections.abc import Mapping
from functools import lru_cache
from numbers import Real
from typing import Any

from continual.errors import ConfigurationError, nearest

COLUMN_WITH_TEXT = "name a column with text"
LONGEST = 40
"""Characters of a value in a message."""


class EmptyCell(str):
    """An empty cell of a table: a missing value, except in a template, where it stands for no text."""


@lru_cache
def template(written: str) -> tuple[tuple[str, str | None], ...] | None:
    """Return the pieces of a template, each a text and the column behind it or None; None for the name of a column.

    Raises:
        ValueError: The braces do not name columns.
    """
    if "{" not in written and "}" not in written:
        return None
    try:
        pieces = list(string.Formatter().parse(written))
    except ValueError as error:
        raise ValueError(f"the template `{written}` has a brace too many ({error}); write `{{{{` for a brace") from None
    if any(name == "" or given or conversion for _, name, given, conversion in pieces):
        raise ValueError(f"the template `{written}` needs a plain column in braces, e.g. `{{question}}`")
    if not any(name for _, name, _, _ in pieces):
        raise ValueError(f"the template `{written}` names no column; write one in braces, e.g. `{{question}}`")
    return tuple((text, name) for text, name, _, _ in pieces)


def columns_of(written: str) -> list[str]:
    """Return the columns that an option names: itself, or those of its template."""
    pieces = template(written)
    return [written] if pieces is None else [name for _, name in pieces if name]


def value_of(option: str, column: str, document: Mapping[str, Any]) -> Any:
    """Return a value of a document. Raises ConfigurationError with the columns there are for one that is missing."""
    if column in document:
        return document[column]
    blank = next((name for name in document if isinstance(name, str) and name.strip() == column.strip()), None)
    if blank is not None:
        fix = "write it so in the YAML, in quotes, or take the blanks out of the file"
        raise ConfigurationError(option, f"no field `{column}`, but {json.dumps(blank)} with blanks", fix)
    known = sorted(readable(name) for name in document)
    near = nearest(column, known)
    has = f"it has {', '.join(known[:20])}" if known else "it has no fields at all"
    raise ConfigurationError(option, f"no field `{column}`", f"did you mean `{near}`? {has}" if near else has)


def text_of(option: str, written: str, document: Mapping[str, Any]) -> str:
    """Return the text that an option asks for: a column of text, or a template over columns of text and numbers.

    Args:
        option: The option, for messages.
        written: Its value, the name of a column or a template.
        document: The document.

    Raises:
        ConfigurationError: A column is missing, or holds something else; it is never turned into its printed form.
    """
    pieces = template(written)
    if pieces is None:
        value = value_of(option, written, document)
        if not isinstance(value, str) or isinstance(value, EmptyCell):
            fix = COLUMN_WITH_TEXT
            if is_number(value):
                key = option if option in ("text", "prompt", "completion") else written
                fix += f', or write it through a template, `{key}: "{{{written}}}"`'
            raise ConfigurationError(option, f"`{written}` holds {kind_of(value)}, not text", fix)
        return unicode_text(option, written, value)
    text = ""
    for literal, column in pieces:
        text += literal
        if column is not None:
            value = value_of(option, column, document)
            if not isinstance(value, str) and not is_number(value):
                problem = f"`{column}` holds {kind_of(value)}, not text or a number"
                raise ConfigurationError(option, problem, "name columns with text or numbers in the template")
            text += unicode_text(option, column, str(value))
    return text


def unicode_text(option: str, column: str, value: str) -> str:
    """Return a text as a plain `str`. Raises ConfigurationError if it cannot be written as UTF-8."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"`{column}` is not UTF-8 text (character {error.start + 1})"
        raise ConfigurationError(option, problem, "save it as UTF-8") from None
    return str(value)


def readable(value: Any) -> str:
    """Return a value for a message: short, on one line, in letters that can be written."""
    text = " ".join(str(value).split()).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, of Python or of numpy."""
    if isinstance(value, bool) or not (isinstance(value, Real) or type(value).__name__ == "Decimal"):
        return False
    return math.isfinite(value)


def kind_of(value: Any) -> str:
    """Return the words for a value that is not what was asked for."""
    name = type(value).__name__
    if value is None:
        return "null"
    if isinstance(value, EmptyCell):
        return "an empty cell"
    if isinstance(value, str):
        return "text"
    if name in ("bool", "bool_"):
        return "a truth value"
    if isinstance(value, Real) or name == "Decimal":
        return "a number" if is_number(value) else "NaN" if math.isnan(value) else "an infinite number"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple) or name == "ndarray":
        return "a list"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
