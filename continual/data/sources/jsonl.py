"""JSON: one object per line, or one array of objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Literal

from continual.contract.source import Document
from continual.data.sources.files import ColumnSource, StreamSource
from continual.data.sources.json_text import json_documents
from continual.errors import ConfigurationError


class JsonlSource(ColumnSource, StreamSource):
    """JSON, plain or compressed: one object per line, or one array of objects."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".ndjson")

    type: Literal["jsonl"] = "jsonl"

    def parse(self, data: IO[bytes], file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        return json_documents(data)
