"""JSON lines: one object per line."""

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from continual.config.problems import shown
from continual.config.yaml_text import kind_name
from continual.contract.source import Document
from continual.data.sources.files import ColumnSource, TextFileSource, open_text
from continual.errors import ConfigurationError

COUNT_BYTES = 16 << 20
"""How far into a file lines are counted."""


class JsonlSource(ColumnSource, TextFileSource):
    """JSON lines, plain or gzip: one object per line."""

    type: Literal["jsonl"] = "jsonl"

    def read(self, key: str, file: Path, count: int) -> Iterator[Document]:
        with open_text(file) as lines:
            numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
            for number, line in itertools.islice(numbered, count):
                yield _object(key, f"{file.name} line {number}", line)

    def items(self, file: IO[str]) -> Iterable[str]:
        return (line for line in file if line.strip())

    def count(self) -> int | None:
        return round(sum(_lines(file) for file in self.files()))


def _object(key: str, place: str, line: str) -> Document:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        spread = line.lstrip().startswith("[") or line.strip() == "{"
        fix = "write one JSON object per line" + (", not one array or object over many lines" if spread else "")
        problem = f"{place} is not JSON ({error.msg} at column {error.colno}): {shown(line.strip()[:60])}"
        raise ConfigurationError(key, problem, fix) from error
    if not isinstance(value, dict):
        problem = f"{place} is a {kind_name(value)}, not an object"
        raise ConfigurationError(key, problem, "write one JSON object per line")
    return value


def _lines(file: Path) -> float:
    """Return the lines of a file, plain or gzip: counted in its beginning and scaled by the file's size."""
    with file.open("rb") as raw, gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw as data:
        lines = read = 0
        last = b"\n"
        while read < COUNT_BYTES and (block := data.read(1 << 20)):
            lines, read, last = lines + block.count(b"\n"), read + len(block), block[-1:]
        whole = not data.read(1)
        return lines + (last != b"\n") if whole else lines * file.stat().st_size / raw.tell()
