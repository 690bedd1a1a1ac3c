"""Files as bytes, lines and text, compressed or not."""

import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from continual.errors import ConfigurationError
from continual.errors.budget import LINE, is_limited, reaches, spend

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
"""How compressed files begin: their contents decide, whatever the name says."""
COMPRESSED = (".gz", ".bz2", ".zst", ".xz")
BOM = b"\xef\xbb\xbf"
LONGEST = 64 << 20
"""Bytes, or characters, of the longest document: what is longer may have no end."""
BUFFER = 1 << 13


class _Metered(io.RawIOBase):
    """A file whose reading is paid for, before a run."""

    def __init__(self, data: Any):
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        spend(len(buffer))
        return int(self._data.readinto(buffer))


@contextmanager
def opened(file: Path) -> Iterator[tuple[IO[bytes], Any]]:
    """Open a file for reading; yield its contents, decompressed, and the raw file, whose `tell()` is the progress.

    Reading raises Enough where a limit holds (see `continual.errors.budget`) and is reached.
    """
    with _decompressed(file) as (data, raw):
        yield (io.BufferedReader(_Metered(data), BUFFER) if is_limited() else data), raw


@contextmanager
def _decompressed(file: Path) -> Iterator[tuple[IO[bytes], Any]]:
    with file.open("rb") as raw:
        begin = raw.read(6)
        raw.seek(0)
        kind = next((kind for magic, kind in MAGIC.items() if begin.startswith(magic)), None)
        if kind is None:
            yield raw, raw
        elif kind == "xz":
            with lzma.open(raw) as data:
                yield data, raw
        else:
            import pyarrow as pa

            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), kind) as stream:
                yield io.BufferedReader(stream, 1 << 20), raw


def lines(data: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their numbers, without the byte-order mark; blank lines are left out.

    Raises ConfigurationError for a line of more than LONGEST bytes.
    """
    for number, line in enumerate(iter(partial(data.readline, LONGEST + 1), b""), 1):
        spend(LINE)
        reaches(len(line))
        if len(line) > LONGEST:
            problem = f"line {number} has more than {LONGEST >> 20} MiB"
            raise ConfigurationError("path", problem, "write one document per line")
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield number, line


def text(data: IO[bytes]) -> IO[str]:
    """Return a file as text in which bytes that are not UTF-8 are lone surrogates, which are found where it matters."""
    return io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="")
