"""The spool: everything that goes to MLflow, first written to a file of the run."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """A record, and the byte at which the next one begins."""

    record: dict[str, Any]
    end: int


class Spool:
    """An append-only file of JSON records, one per line, each with its number `n` (from 0). One process writes it.

    The first line holds `id`, which is unique and tells this spool's runs in MLflow from those of any other. A line
    that a kill left half written is cut off when the spool is opened again; it was never sent.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("ab")
        self._file.truncate(self._whole())
        if self._file.tell() == 0:
            self._write({"spool": uuid.uuid4().hex})
        with path.open("rb") as file:
            header = file.readline()
        self.id, self._first = json.loads(header)["spool"], len(header)
        self.count = sum(1 for _ in self.read())

    def _whole(self) -> int:
        """Bytes up to the end of the last complete line."""
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                end += len(line) if line.endswith(b"\n") else 0
        return end

    def append(self, record: dict[str, Any]) -> None:
        """Write the record and force it to disk. Raises TypeError for what JSON cannot hold."""
        self._write({"n": self.count, **record})
        self.count += 1

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write((json.dumps(record) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, offset: int = 0) -> Iterator[Entry]:
        """The complete records from byte `offset` on; may run while another thread appends."""
        offset = max(offset, self._first)
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield Entry(json.loads(line), offset)

    def close(self) -> None:
        self._file.close()
