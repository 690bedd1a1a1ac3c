"""Plain text files: each is one document."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from continual.contract.source import Document
from continual.data.sources.files import TextFileSource, open_text

TEXT_CHARACTERS = 1 << 20
"""How much of a file is read before a run."""


class TextSource(TextFileSource):
    """Plain text, UTF-8: each file is one document of running text, cut into rows."""

    type: Literal["text"] = "text"

    @property
    def cuts(self) -> bool:
        return self.overlong != "drop"

    @property
    def has_prompts(self) -> bool:
        return False

    @property
    def text_bytes(self) -> int | None:
        return sum(file.stat().st_size for file in self.files())

    def read(self, key: str, file: Path, count: int) -> Iterator[Document]:
        with open_text(file) as data:
            text = data.read(TEXT_CHARACTERS)
        if text.strip():
            yield {"text": text}

    def items(self, file: IO[str]) -> Iterable[str]:
        return [json.dumps({"text": file.read()})]

    def count(self) -> int | None:
        return len(self.files())
