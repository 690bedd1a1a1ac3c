"""The stage's `metrics.jsonl`: one line per optimizer step, written by rank 0, read by the driver as it grows."""

import json
import os
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from continual.ledger.events import is_record
from continual.ledger.lines import Tail, write_line
from continual.store import write_atomic
from continual.store.notices import say


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a stage's steps; damaged ones are left out, and the user is told."""
    with closing(Tail(path, is_record)) as tail:
        records = list(tail.read())
    if tail.damaged:
        say(f"{path}: {tail.damaged} damaged records of steps are left out")
    return records


def last_records(path: Path, size: int) -> list[dict[str, Any]]:
    """Return the whole records in the last `size` bytes of a file, without damaged ones; [] if the file is missing."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        lines = file.read(size).splitlines()
    records = []
    for line in lines:  # the first may have begun before
        with suppress(ValueError, RecursionError):
            if is_record(record := json.loads(line)):
                records.append(record)
    return records


class Records:
    """Appends records, each with its time; a resume drops those after the checkpoint, so each step occurs once."""

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_records(path) if line["step"] <= step]
        # A new file, never the old one cut: readers of the old one notice.
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        write_line(self.file, {**record, "time": round(time.time(), 3)})
