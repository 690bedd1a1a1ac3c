"""Plain text files: each is one document."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from continual.contract.source import Document
from continual.data.sources.files import TextFileSource
from continual.errors import ConfigurationError, one_line

TEXT_BYTES = 1 << 20
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
        try:
            with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as data:
                text = codecs.getincrementaldecoder("utf-8")().decode(data.read(TEXT_BYTES))
        except UnicodeDecodeError as error:
            raise ConfigurationError(key, f"{file.name} is not UTF-8 text", "save the file as UTF-8") from error
        except (OSError, EOFError, zlib.error) as error:
            problem = f"{file.name} cannot be read ({one_line(error)})"
            raise ConfigurationError(key, problem, "replace the file") from error
        if text.strip():
            yield {"text": text}

    def items(self, file: IO[str]) -> Iterable[str]:
        return [json.dumps({"text": file.read()})]

    def count(self) -> int | None:
        return len(self.files())
