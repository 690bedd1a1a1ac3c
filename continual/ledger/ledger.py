"""The ledger: an append-only file of events that says what of a run is finished, and the run's lock.

Each stage is a transaction: everything before its `stage_done` line can be repeated (and finds its artefacts in the
store), everything after it is skipped.
"""

import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from continual.errors import redacted
from continual.ledger.events import is_event
from continual.ledger.folder import RunFolder
from continual.ledger.lines import Tail, write_line
from continual.store import FileLock

SHOWN = frozenset({"tags", "params", "why"})
"""Facts that only readers see: no name or path that is read again would suffer from a word taken for a secret."""
FORMAT = 2
"""The version of what a run keeps in its folder. Raise it when a run that was begun before cannot be resumed."""


class Events:
    """An append-only file of events, one JSON object per line, each with its name and time. One process writes it."""

    def __init__(self, path: Path):
        self.path = path
        self.events: list[dict[str, Any]] = []
        self.damaged = 0
        self._by_stage: dict[tuple[str, Any], list[dict[str, Any]]] = {}
        self._known = 0
        """How many of the events are in `_by_stage`."""
        self._held: list[dict[str, Any]] | None = None

    def open(self) -> Self:
        """Read the file in order to append to it: a line that a kill left unfinished is cut off.

        `damaged` counts lines that hold no event. They stay in the file, but are not used.
        """
        tail = self.read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(tail.offset)
        return self

    def read(self) -> Tail:
        """Read the file as it is; return what has read it, which is closed."""
        self.forget()
        with closing(Tail(self.path, is_event)) as tail:
            self.events += tail.read()
            self.damaged = tail.damaged
            return tail

    @property
    def loss(self) -> list[str]:
        """A sentence if lines of the file are damaged."""
        if not self.damaged:
            return []
        lines = f"{self.damaged} damaged line{'s' * (self.damaged > 1)}"
        return [f"{self.path} has {lines}: what stood there is lost, and what it said was done is done again"]

    def add(self, event: str, **facts: Any) -> dict[str, Any]:
        """Append one event, durably, or as soon as `write` is given those that are held."""
        line: dict[str, Any] = {"event": event, "time": round(time.time(), 3)}
        line |= {name: redacted({name: value}, known=name in SHOWN)[name] for name, value in facts.items()}
        if self._held is None:
            self.write([line])
        else:
            self._held.append(line)
        self.events.append(line)
        return line

    def hold(self) -> None:
        """Keep what is added from now on in memory: something that is not known yet comes before it in the file."""
        self._held = []

    def release(self) -> list[dict[str, Any]]:
        """Hold nothing any more; return what was held, for `write`."""
        held, self._held = self._held or [], None
        return held

    def write(self, lines: list[dict[str, Any]]) -> None:
        """Append events to the file, durably."""
        with self.path.open("a", encoding="utf-8") as file:
            for line in lines:
                write_line(file, line, durable=True)

    def drop(self, lines: list[dict[str, Any]]) -> None:
        """Forget events that were held and never written."""
        dropped = {id(line) for line in lines}
        self.events = [line for line in self.events if id(line) not in dropped]
        self._by_stage, self._known = {}, 0

    def find(self, event: str, **facts: Any) -> dict[str, Any] | None:
        """Return the newest event with these facts; of those with a `stage`, only that stage's are looked at."""
        wanted = {"event": event, **facts}
        events = self.of_stage(event, facts["stage"]) if "stage" in facts else self.events
        return next((line for line in reversed(events) if wanted.items() <= line.items()), None)

    def forget(self) -> None:
        """Drop the events that were read or added; the file stays as it is."""
        self.events, self._by_stage, self._known = [], {}, 0

    def of_stage(self, event: str, stage: int) -> list[dict[str, Any]]:
        """Return the events of one kind and stage, however many others there are."""
        for line in self.events[self._known :]:
            self._by_stage.setdefault((line["event"], line.get("stage")), []).append(line)
        self._known = len(self.events)
        return self._by_stage.get((event, stage), [])

    def find_first(self, event: str) -> dict[str, Any] | None:
        """Return the oldest event of the name."""
        return next((line for line in self.events if line["event"] == event), None)

    def all(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events if line["event"] == event]

    def run_id(self) -> str:
        """Return the identity of this run, the same over all resumes; it names the maker of what goes into the store.

        The first call writes it, as the file's first event.
        """
        first = self.find("run") or self.add("run", id=uuid.uuid4().hex, format=FORMAT)
        return str(first["id"])

    def seconds(self) -> dict[str, float]:
        """Return the time spent by phase, over all resumes."""
        total: dict[str, float] = {}
        for line in self.all("phase"):
            total[line["phase"]] = round(total.get(line["phase"], 0.0) + line["seconds"], 2)
        return total


def read_ledger(folder: Path) -> Events:
    """Return the events of the run in a folder, read without the run's lock."""
    ledger = Events(RunFolder(folder).ledger)
    ledger.read()
    return ledger


def read_events(folder: Path, event: str) -> list[dict[str, Any]]:
    """Return the events of one kind, read without the run's lock."""
    return read_ledger(folder).all(event)


class Ledger(Events):
    """The events of one run. `with ledger:` holds the run's lock; a second driver is refused, or waits with `wait`."""

    def __init__(self, folder: Path, wait: bool = False):
        super().__init__(RunFolder(folder).ledger)
        self.folder = folder
        self._lock = FileLock(RunFolder(folder).lock, wait, of="run")

    def __enter__(self) -> Self:
        self._lock.__enter__()
        return self.open()

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def open_stages(self) -> set[int]:
        """Return the stages that were begun and are not done."""
        return {event["stage"] for event in self.all("prepared")} - {event["stage"] for event in self.all("stage_done")}
