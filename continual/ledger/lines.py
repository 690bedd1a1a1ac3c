"""Files of JSON lines: appended durably, and read as they grow."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

LAST_BYTES = 1 << 16
"""The end of a file of steps' records: some hundred of them."""


def write_line(file: IO[str], value: Any, durable: bool = False) -> None:
    """Append a value to an open file, visible to readers at once; `durable`: also after a loss of power."""
    file.write(json.dumps(value) + "\n")
    file.flush()
    if durable:
        os.fsync(file.fileno())


def _any(value: Any) -> bool:
    return True


def read_lines(path: Path, good: Callable[[Any], bool] = _any) -> list[Any]:
    """Return all whole lines of a file, without those that are damaged (see `Tail`); none if it is missing."""
    with closing(Tail(path, good)) as tail:
        return list(tail.read())


def read_last_lines(path: Path, most: int = LAST_BYTES, good: Callable[[Any], bool] = _any) -> list[Any]:
    """Return the good lines within the last `most` bytes of a file; none if it is missing.

    The first line there, which may begin before them, and a line without its end are left out as damaged ones are.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            lines = file.read(most).splitlines(keepends=True)
    except OSError:
        return []
    return [value for line in lines if line.endswith(b"\n") for value in _values(line, good)]


def _values(line: bytes, good: Callable[[Any], bool]) -> list[Any]:
    """Return the value of a line; none if it is damaged."""
    try:
        value = json.loads(line)
        return [value] if good(value) else []
    except (ValueError, RecursionError):
        return []


class Tail:
    """Reads the lines that a file has gained since the last call; the cost of a call is its new lines.

    A line without its end is left for a later call. A line that is not JSON, or no value that is `good`, is left out
    and counted in `damaged`: what stands behind it is still good. A file that was replaced or became shorter is read
    again from its beginning.
    """

    def __init__(self, path: Path, good: Callable[[Any], bool] = _any):
        self.path, self.good, self.offset, self.damaged = path, good, 0, 0
        self._file: IO[bytes] | None = None

    def read(self) -> Iterator[Any]:
        """Yield the new lines. A line counts as read only when the next one is asked for."""
        if not self.path.is_file():
            return
        if self._file is None or self._changed(self._file):
            self.close()
            self._file, self.offset, self.damaged = self.path.open("rb"), 0, 0
        self._file.seek(self.offset)
        for line in self._file:
            if not line.endswith(b"\n"):
                return
            found = _values(line, self.good)
            if not found:
                self.offset += len(line)
                self.damaged += 1
                continue
            yield from found
            self.offset += len(line)

    def _changed(self, file: IO[bytes]) -> bool:
        """Return whether the name now means another file, or the same one after it was cut.

        The open file keeps its inode from being given to another one.
        """
        now, known = self.path.stat(), os.fstat(file.fileno())
        return (now.st_dev, now.st_ino) != (known.st_dev, known.st_ino) or now.st_size < self.offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
