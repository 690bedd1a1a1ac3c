"""Plain text files: each is one document."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Literal

from pydantic import PrivateAttr

from continual.contract.reading import Beginning
from continual.contract.source import Document
from continual.data.sources.bytes import BOM
from continual.data.sources.files import StreamSource
from continual.errors import ConfigurationError

TEXT_BYTES = 1 << 20
"""How much of a file is read before a run."""


class TextSource(StreamSource):
    """Plain text, UTF-8: each file is one document of running text, cut into rows."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".text")

    type: Literal["text"] = "text"
    _most: int = PrivateAttr(-1)

    @property
    def cuts(self) -> bool:
        return self.overlong != "drop"

    @property
    def has_prompts(self) -> bool:
        return False

    @property
    def text_bytes(self) -> int | None:
        return sum(file.stat().st_size for file in self.files())

    def parse(self, data: IO[bytes], file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        written = data.read(self._most)
        return iter([text_document(written, final=len(written) != self._most)])

    def first(self, key: str, count: int) -> Beginning:
        bounded = self.model_copy()
        bounded._most = TEXT_BYTES
        return super(TextSource, bounded).first(key, count)

    def count(self) -> int | None:
        return len(self.files())


def text_document(written: bytes, final: bool = True) -> tuple[str, Document | ConfigurationError]:
    """Return the place and the document of a file of plain text, or of its beginning if it is not `final`."""
    try:
        return "", {"text": codecs.getincrementaldecoder("utf-8")().decode(written.removeprefix(BOM), final)}
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        return f"line {line}", ConfigurationError("path", "not UTF-8 text", "save the file as UTF-8")
