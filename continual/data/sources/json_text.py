"""Documents written as JSON: one object per line, or one array of objects."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from continual.config.problems import shown
from continual.contract.columns import kind_of
from continual.contract.source import Document
from continual.data.sources.bytes import BOM, LONGEST, lines, text
from continual.errors import ConfigurationError, one_line
from continual.errors.budget import LINE, reaches, spend
from continual.errors.json_text import check_depth, parse_json

BLOCK = 1 << 20
"""Characters that are read at a time, more where an element needs them."""
LONGEST_WORD = 64
"""Characters before the end of what was read in which a word, a number or an escape may be cut."""
BLANK = re.compile(r"[ \t\r\n]*")
ONE_PER_LINE = "write one JSON object per line, or one array of objects"


def json_documents(data: IO[bytes]) -> Iterator[tuple[str, Document | ConfigurationError]]:
    """Yield the documents of an open file with their places in it; a line that is broken does not end them."""
    if data.peek(64).removeprefix(BOM).lstrip().startswith(b"["):  # type: ignore[attr-defined]
        yield from _array(text(data))
        return
    for number, line in lines(data):
        yield f"line {number}", _line(line)


def _line(line: bytes) -> Document | ConfigurationError:
    try:
        written = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return ConfigurationError("path", f"not UTF-8 text (byte {error.start + 1})", "save the file as UTF-8")
    try:
        return _object(parse_json(written))
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg} at column {error.colno}): {shown(written.strip()[:60])}"
        return ConfigurationError("path", problem, ONE_PER_LINE)
    except ValueError as error:
        return ConfigurationError("path", f"cannot be read ({one_line(error)})", "write a simpler value")


def _object(value: Any) -> Document | ConfigurationError:
    if isinstance(value, dict):
        return value
    return ConfigurationError("path", f"{kind_of(value)}, not an object", ONE_PER_LINE)


def _array(file: IO[str]) -> Iterator[tuple[str, Document | ConfigurationError]]:
    """Yield the elements of an array, without the whole file in memory."""
    array = _Array(file)
    array.sign(skip=True)
    number = 0
    while number or array.sign() != "]":
        number += 1
        spend(LINE)
        array.sign()
        line = array.line
        yield f"item {number} (line {line})", _object(array.value())
        if array.sign() != ",":
            break
        array.sign(skip=True)
    if array.sign(skip=True) != "]":
        raise _broken(array.line, None)
    if array.sign():
        raise ConfigurationError("path", f"line {array.line}: text behind the array", ONE_PER_LINE)


class _Array:
    """A JSON text that is read on as it is needed.

    By the standard library, which reads the NaN that pandas and Python write, unlike the parsers for streams.
    """

    def __init__(self, file: IO[str]):
        self._file, self._buffer, self._at, self._block = file, "", 0, BLOCK
        self._decode = json.JSONDecoder().raw_decode
        self.line = 1

    def sign(self, skip: bool = False) -> str:
        """Return the next sign that is not blank, and go behind it with `skip`; "" at the end of the file."""
        while True:
            match = BLANK.match(self._buffer, self._at)
            self._go(match.end() if match else self._at)
            if self._at < len(self._buffer):
                sign = self._buffer[self._at]
                self._at += skip
                return sign
            if not self._more():
                return ""

    def value(self) -> Any:
        """Return the value that begins here, and go behind it. Raises ConfigurationError if there is none."""
        while True:
            failure: Exception | None = None
            try:
                value, until = self._decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                failure, until = error, len(self._buffer)
            # A value at the end of what was read may go on behind it; what is broken before the end stays broken.
            if until == len(self._buffer) and not self._ends_before(failure):
                reaches(until - self._at)
                if until - self._at > LONGEST:
                    problem = f"line {self.line}: an element has more than {LONGEST >> 20} MiB"
                    raise ConfigurationError("path", problem, "close its quote or bracket, or write smaller documents")
                if self._more():
                    self._block *= 4
                    continue
            if failure is not None:
                raise _broken(self.line, failure)
            self._go(until)
            self._block = BLOCK
            try:
                check_depth(value)
            except ValueError as error:
                raise _broken(self.line, error) from error
            return value

    def _ends_before(self, failure: Exception | None) -> bool:
        """Return whether a failure lies too far before the end of what was read to be mended by what follows."""
        if not isinstance(failure, json.JSONDecodeError) or failure.msg.startswith("Unterminated"):
            return False
        return failure.pos < len(self._buffer) - LONGEST_WORD

    def _go(self, at: int) -> None:
        self.line += self._buffer.count("\n", self._at, at)
        self._at = at

    def _more(self) -> bool:
        more = self._file.read(self._block)
        self._buffer, self._at = self._buffer[self._at :] + more, 0
        return bool(more)


def _broken(line: int, error: Exception | None) -> ConfigurationError:
    if error is not None and not isinstance(error, json.JSONDecodeError):
        return ConfigurationError("path", f"line {line}: cannot be read ({one_line(error)})", "write a simpler value")
    why = f" ({error.msg})" if isinstance(error, json.JSONDecodeError) else ""
    return ConfigurationError("path", f"line {line}: the array is broken{why}", "write the file again")
