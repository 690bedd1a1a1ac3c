"""A data source from outside the project, as another package would write it; and work that stays in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from continual.contract.source import Document, Source
from continual.data.read import tables
from continual.data.tokenize import Tokenize


class Numbered(Source):
    """Documents `w0 w1`, `w1 w2`, ...: as many as the only line of a file says."""

    path_options: ClassVar[dict[str, bool]] = {"file": False}

    file: str

    def parts(self) -> list[str]:
        return [f"{start}" for start in range(0, self.count(), 32)]

    def read(self, part: str) -> Iterator[tuple[str, Document]]:
        for number in range(int(part), min(int(part) + 32, self.count())):
            yield f"number {number}", self._document(number)

    def count(self) -> int:
        return int(Path(self.file).read_text())

    def identity(self) -> dict[str, Any]:
        return {**self.model_dump(exclude={"file"}), "count": self.count()}

    @staticmethod
    def _document(number: int) -> Document:
        return {"text": f"w{number % 60} w{(number + 1) % 60}"}


OUTSIDE = f"{__name__}:Numbered"


def tokenized(source: Source, model: str, row_tokens: int) -> Iterator[pa.Table]:
    """In place of the tasks of Ray Data: what they do, part by part, in this process."""
    for part in source.parts():
        for block in tables(source, source.selection(), {"part": [part]}):
            yield Tokenize(model, source, row_tokens)(block)


def in_process(work: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """In place of `in_cluster`: the same work without Ray."""
    yield from work(*arguments)


def sample_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let samples be made in this process."""
    monkeypatch.setattr("continual.sampling.sample.in_cluster", in_process)
    until = "continual.sampling.sample.in_cluster_until"
    monkeypatch.setattr(until, lambda stop, work, *arguments: in_process(work, *arguments))
