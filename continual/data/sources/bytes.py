"""Files as bytes, lines and text, compressed or not."""

import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from continual.errors import ConfigurationError

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
"""How compressed files begin: their contents decide, whatever the name says."""
COMPRESSED = (".gz", ".bz2", ".zst", ".xz")
BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 64 << 20


@contextmanager
def opened(file: Path) -> Iterator[tuple[IO[bytes], Any]]:
    """Open a file for reading; yield its contents, decompressed, and the raw file, whose `tell()` is the progress."""
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

    Raises ConfigurationError for a line of more than LONGEST_LINE bytes, which may have no end.
    """
    for number, line in enumerate(iter(partial(data.readline, LONGEST_LINE + 1), b""), 1):
        if len(line) > LONGEST_LINE:
            problem = f"line {number} has more than {LONGEST_LINE >> 20} MiB"
            raise ConfigurationError("path", problem, "write one document per line")
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield number, line


def text(data: IO[bytes]) -> IO[str]:
    """Return a file as text in which bytes that are not UTF-8 are lone surrogates, which are found where it matters."""
    return io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="")
