"""What the sources of local files, and those with named columns, have in common."""

import gzip
import json
import os
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from continual.config.paths import CORRECT_PATH, is_uri
from continual.contract.source import Document, Source
from continual.errors import ConfigurationError, one_line

if TYPE_CHECKING:
    import ray.data

READ_CPUS = 0.5
"""CPUs of a Ray task that reads documents."""


class ColumnSource(Source):
    """Base of the sources whose options must name the columns of a document."""

    @model_validator(mode="after")
    def _names_columns(self) -> "ColumnSource":
        if not (self.text or self.prompt or self.messages):
            raise ValueError("name the column(s): `text`, `prompt` and `completion`, or `messages`")
        return self


class FileSource(Source):
    """Base of the sources that read local files one by one."""

    path_options: ClassVar[dict[str, bool]] = {"path": False}

    path: str = Field(description="file, folder or glob")

    @property
    def title(self) -> str:
        return self.path

    def files(self) -> list[Path]:
        path = Path(self.path)
        if path.is_dir():
            return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        if path.is_file():
            return [path]
        return sorted(p for p in path.parent.glob(path.name) if p.is_file()) if path.parent.is_dir() else []

    def first(self, key: str, count: int) -> list[Document]:
        key = f"{key}.path"
        files = self._readable_files(key)[:count]
        documents: list[Document] = []
        for file in files:
            try:
                documents += self.read(key, file, -(-count // len(files)))
            except UnicodeDecodeError as error:
                raise ConfigurationError(key, f"{file.name} is not UTF-8 text", "save the file as UTF-8") from error
            except (OSError, EOFError, zlib.error) as error:
                problem = f"{file.name} cannot be read ({one_line(error)})"
                raise ConfigurationError(key, problem, "replace the file") from error
        if not documents:
            raise ConfigurationError(key, f"{files[0]} has no documents", "put data there")
        return documents[:count]

    @abstractmethod
    def read(self, key: str, file: Path, count: int) -> Iterator[Document]:
        """Yield at most `count` documents of a file. Raises ConfigurationError, with `key`, for any other file."""

    def identity(self) -> dict[str, Any]:
        from continual.store import hash_file

        return {**self.model_dump(exclude={"path"}), "content": [hash_file(path) for path in self.files()]}

    def _readable_files(self, key: str) -> list[Path]:
        """Return the files. Raises ConfigurationError if there are none, or if one cannot be read or is empty."""
        if is_uri(self.path):
            fix = "object storage is not supported yet; use a path on a shared file system"
            raise ConfigurationError(key, f"`{self.path}` is not a local path", fix)
        files = self.files()
        if not files and Path(self.path).is_dir():
            raise ConfigurationError(key, f"the folder {self.path} has no files", "put data there")
        if not files:
            raise ConfigurationError(key, f"there is no file {self.path}", CORRECT_PATH)
        for file in files:
            if not os.access(file, os.R_OK):
                raise ConfigurationError(key, f"{file} cannot be read", "change its permissions")
            if file.stat().st_size == 0:
                raise ConfigurationError(key, f"{file} is empty", "remove it or put data there")
        return files


class TextFileSource(FileSource):
    """Base of the sources whose files are UTF-8 text, plain or gzip."""

    @abstractmethod
    def items(self, file: IO[str]) -> Iterable[str]:
        """Yield the JSON text of every document of an open file."""

    def documents(self) -> "ray.data.Dataset":
        import ray.data

        paths = [{"path": str(path)} for path in self.files()]
        return ray.data.from_items(paths, override_num_blocks=len(paths)).flat_map(self._rows, num_cpus=READ_CPUS)

    def _rows(self, row: dict[str, Any]) -> Iterator[dict[str, str]]:
        with open_text(Path(row["path"])) as file:
            yield from ({"item": item} for item in self.items(file))


def open_text(file: Path) -> IO[str]:
    """Open a UTF-8 file, plain or gzip, for reading."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")


def as_json(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of a typed data set as the JSON text of one document; runs in Ray tasks."""
    return {"item": json.dumps(row, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))}
