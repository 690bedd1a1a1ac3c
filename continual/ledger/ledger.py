"""What of a run is finished: an append-only file of events, and the run's lock.

Each stage is a transaction: everything before its `stage_done` line can be repeated (and finds its artefacts in the
store), everything after it is skipped.
"""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from continual.errors import ContinualError
from continual.store import FileLock, Locked, write_atomic


def read_events(folder: Path, event: str) -> list[dict[str, Any]]:
    """Events of this kind, read without the run's lock."""
    return [line for line in Ledger(folder)._read() if line["event"] == event]


class Ledger:
    """The events of one run. `with ledger:` holds the run's lock; a second driver is refused."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "ledger.jsonl"
        self.events: list[dict[str, Any]] = []
        self._lock = FileLock(folder / "lock", wait=False)

    def __enter__(self) -> "Ledger":
        try:
            self._lock.__enter__()
        except Locked as held:
            raise ContinualError(
                f"{self.folder}: another driver works on this run ({held.owner}); wait for it or end it"
            ) from held
        self.events = self._read()
        # A line cut off by a kill is dropped for good, so that what is appended next begins a line.
        write_atomic(self.path, "".join(json.dumps(event) + "\n" for event in self.events))
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def _read(self) -> list[dict[str, Any]]:
        events = []
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    events.append(json.loads(line))
                except ValueError:
                    break
        return events

    def add(self, event: str, **facts: Any) -> dict[str, Any]:
        """Append one event, durably."""
        line = {"event": event, "time": round(time.time(), 3), **facts}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.events.append(line)
        return line

    def find(self, event: str, **facts: Any) -> dict[str, Any] | None:
        """The newest event with these facts."""
        for line in reversed(self.events):
            if line["event"] == event and all(line.get(key) == value for key, value in facts.items()):
                return line
        return None

    def all(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events if line["event"] == event]

    def run_id(self) -> str:
        """The identity of this run, the same over all its resumes; the maker's name on what it puts into the store."""
        begun = self.find("run") or self.add("run", id=uuid.uuid4().hex)
        return str(begun["id"])

    def seconds(self) -> dict[str, float]:
        """Time spent by phase, over all resumes."""
        total: dict[str, float] = {}
        for line in self.all("phase"):
            total[line["phase"]] = round(total.get(line["phase"], 0.0) + line["seconds"], 2)
        return total
