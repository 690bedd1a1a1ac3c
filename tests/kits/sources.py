"""A data source from outside the project, as another package would write it; and work that stays in this process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from continual.contract.source import Document, Source


class Numbered(Source):
    """Documents `w0 w1`, `w1 w2`, ...: as many as the only line of a file says."""

    path_options: ClassVar[dict[str, bool]] = {"file": False}

    file: str

    def first(self, key: str, count: int) -> list[Document]:
        return [self._document(number) for number in range(min(count, self.count()))]

    def count(self) -> int:
        return int(Path(self.file).read_text())

    def identity(self) -> dict[str, Any]:
        return {**self.model_dump(exclude={"file"}), "count": self.count()}

    def documents(self) -> Any:
        import ray.data

        return ray.data.range(self.count()).map(lambda row: {"item": json.dumps(self._document(row["id"]))})

    @staticmethod
    def _document(number: int) -> Document:
        return {"text": f"w{number % 60} w{(number + 1) % 60}"}


OUTSIDE = f"{__name__}:Numbered"


def in_process(work: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """In place of `in_cluster`: the same work without Ray."""
    yield from work(*arguments)
