"""From the ledger and the records of the steps to MLflow, in order, without duplicates."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from continual.errors import fingerprinted
from continual.forgetting import read_matrix, scores_from_json
from continual.ledger.events import is_event, is_record
from continual.ledger.folder import RunFolder
from continual.ledger.lines import Tail, read_lines
from continual.ledger.places import placed, placed_model
from continual.show.tables import matrix_columns
from continual.show.tracking.client import METRICS_PER_REQUEST, Client, Numbers
from continual.show.tracking.moved import sqlite_in
from continual.show.tracking.names import (
    EXPERIMENT,
    SEQUENCE,
    drift_metrics,
    stage_key,
    stage_metrics,
    walk_end,
    walk_metrics,
)
from continual.store.files import write_atomic
from continual.store.json_files import has, known_json
from continual.store.places import lies_in

_saved = has(uri=str, experiment=str, ledger_id=str, runs=dict, events=int, steps=dict, pending=list)
"""What a saved state has; a damaged one is begun again: MLflow tells what it has by the runs' keys."""
log = logging.getLogger(__name__)

SENT = ("started", "prepared", "scored", "inside", "walked", "stage_done", "best", "results", "stopped", "ended")
"""The events that MLflow hears of."""


@dataclass
class State:
    """How far the events (their number) and the steps (the last one, by logical key) were sent, and where to.

    `runs` is {logical key: MLflow's run id}. `pending` are steps that are on their way: after a kill they are sent once
    more exactly as they were, since a resumed stage writes the same steps with other times.
    """

    uri: str
    experiment: str
    ledger_id: str
    runs: dict[str, str] = field(default_factory=dict)
    events: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    pending: list[Any] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, uri: str, experiment: str | None, ledger_id: str) -> "State":
        """Return the saved state; a new one, so that all is sent again, for another tracker, experiment or ledger.

        Without an `experiment` a run stays in the one that it has begun in.
        """
        saved = known_json(path, _saved)
        if saved:
            saved["uri"] = fingerprinted(saved["uri"])
        # The file holds no password.
        new = cls(fingerprinted(uri), experiment or saved.get("experiment") or EXPERIMENT, ledger_id)
        same = all(saved.get(name) == getattr(new, name) for name in ("uri", "experiment", "ledger_id"))
        return cls(**{each.name: saved[each.name] for each in fields(cls)}) if same else new


class Sender:
    """Follows a file of events and the records of the stages that are being trained. Used by one thread.

    The state is saved after every event and around every batch of steps, so that a kill at any point leaves neither
    gaps nor duplicates.
    """

    def __init__(self, events: Path, uri: str, experiment: str | None):
        self.events, self.folder = events, RunFolder(events.parent)
        ledger_id = next((line["id"] for line in read_lines(events, is_event) if line["event"] == "run"), "")
        place = sqlite_in(self.folder.storage, uri) or uri
        self.state = State.load(self.folder.tracker_state, place, experiment, ledger_id)
        if not self.folder.tracker_state.is_file():
            self._save()  # says that this run is tracked, also if the tracker is never reached
        self._client = Client(uri, self.state.experiment, ledger_id)
        self._tail, self._read = Tail(events, is_event), 0
        self._stages: dict[str, Tail] = {}

    def waiting(self) -> Iterator[Any]:
        """Yield the events and the records that MLflow does not have yet, read from the files."""
        stages: dict[str, Path] = {}
        for number, event in enumerate(read_lines(self.events, is_event)):
            sent = number < self.state.events
            if event["event"] in SENT and not sent:
                yield event
            if event["event"] == "prepared":
                stages[stage_key(event["stage"])] = self._records(event)
            elif event["event"] == "stage_done" and sent:
                stages.pop(stage_key(event["stage"]), None)
        for key, path in stages.items():
            yield from (
                record for record in read_lines(path, is_record) if record["step"] > self.state.steps.get(key, 0)
            )

    def send(self) -> None:
        """Send all that is new. Raises what mlflow raises when it is down; the state says how far this came."""
        if not self._client.connected:
            self._client.settle()
            if next(self.waiting(), None) is None:
                return
            if not self._client.connect(self.state.runs):
                log.warning("the MLflow runs of %s are gone; everything is sent again", self.folder.path)
                self.state = State(self.state.uri, self.state.experiment, self.state.ledger_id, self._client.runs)
        self._send_pending()
        for event in self._tail.read():
            if event["event"] == "prepared":
                self._stages.setdefault(stage_key(event["stage"]), Tail(self._records(event), is_record))
            if self._read >= self.state.events:
                self._send_event(event)
                self.state.events = self._read + 1
                if event["event"] in SENT:
                    self._save()
            if event["event"] == "stage_done" and (tail := self._stages.pop(stage_key(event["stage"]), None)):
                tail.close()
            self._read += 1
        for key in self._stages:
            self._send_steps(key)

    def _records(self, prepared: dict[str, Any]) -> Path:
        return self.folder.stage(prepared["stage"], prepared.get("name", "")).metrics

    def _save(self) -> None:
        write_atomic(self.folder.tracker_state, json.dumps(asdict(self.state), indent=1))

    def _send_event(self, event: dict[str, Any]) -> None:
        kind, key, time = event["event"], event.get("key", SEQUENCE), round(event.get("time", 0) * 1000)
        if kind == "started":
            self._client.start(key, event["name"], None, event["tags"], event["params"], time)
            self._send_files(key, event["files"])
        elif key not in self._client.runs:
            return  # the driver failed before it started the run
        elif kind == "scored":
            self._send_once(key, Numbers(event["stage"], time, event.get("metrics", {})))
        elif kind == "best":
            self._send_once(key, Numbers(event["done"], time, event["metrics"]))
        elif kind == "results":
            self._client.metrics(key, [Numbers(event["step"], time, event["metrics"])])
            self._send_files(key, event["files"])
        elif kind == "stopped":
            self._client.tags(key, {"stopped": event["why"]})
        elif kind == "ended":
            self._end(event, key, time)
        elif kind in SENT:
            self._send_stage(event, stage_key(event["stage"]), time)

    def _send_stage(self, event: dict[str, Any], key: str, time: int) -> None:
        if event["event"] == "prepared":
            tags, own = event.get("tags", {}), event.get("name", "")
            name = f"{tags.get('sequence', '')}/{event['stage']}-{own}"
            params = {"steps": str(event["steps"]), "mitigation": tags.get("mitigation", "")}
            self._client.start(key, name, SEQUENCE, tags, params, time)
            read = {f"passes/{stream}": of["passes"] for stream, of in event.get("passes", {}).items()}
            if read:
                self._send_once(key, Numbers(0, time, read))
            for stream, data in event.get("data", {}).items():
                path = placed(data["path"], self.folder.storage)
                context = "training" if stream == "task" else "replay"
                self._client.dataset(key, stream, data["content"][:16], path, context, data["counts"])
                # The list of runs shows the data of whole sequences: each stage's, by the stage's name.
                name = own if stream == "task" else stream
                self._client.dataset(SEQUENCE, name, data["content"][:16], path, context, data["counts"])
        elif event["event"] == "inside":
            scores = scores_from_json(event["scores"])
            values = {f"score/{task}": value.score for task, value in scores.items()} | drift_metrics(scores)
            self._client.metrics(key, [Numbers(event["step"], time, values)])
        elif event["event"] == "walked":
            self._client.metrics(key, [Numbers(step, time, of) for step, of in walk_metrics(event["walk"])])
            self._client.metrics(SEQUENCE, [Numbers(event["stage"], time, walk_end(event["walk"]))])
        else:
            self._send_steps(key)
            model = Path(placed_model(event["model"], self.folder.path))
            if (version := event.get("version")) and self._may_send(model):
                self._client.register(key, version["name"], model, version["tags"])
            self._client.finish(key, "FINISHED", time)

    def _end(self, event: dict[str, Any], key: str, time: int) -> None:
        """Close the run and the stages that are open."""
        self._client.tags(key, event.get("tags", {}))
        self._send_files(key, event["files"])
        if event.get("matrix"):
            self._client.table(key, matrix_columns(read_matrix(event["matrix"])), "matrix.json")
        for stage in map(stage_key, event["open"]):
            self._send_steps(stage)
            self._client.finish(stage, event["status"], time)
        self._client.finish(key, event["status"], time)

    def _send_files(self, key: str, files: list[str]) -> None:
        for file in files:
            if self._may_send(path := self.folder.path / file):
                self._client.artifact(key, path)

    def _may_send(self, path: Path) -> bool:
        """Return whether a file, or a folder with all that is in it, lies in the storage, and say so if it does not.

        What a ledger or a link in the storage names elsewhere may be anything of the user's.
        """
        places = (self.folder.path, self.folder.storage, self.folder.storage / "store")
        if all(lies_in(each, *places) for each in (path, *path.rglob("*"))):
            return True
        log.warning("%s lies outside of the storage, or holds what does; it is not sent to MLflow", path)
        return False

    def _send_once(self, key: str, numbers: Numbers) -> None:
        """Send the numbers of a step unless the run has come as far: a resumed run may repeat a step."""
        if numbers.step > self.state.steps.get(key, -1):
            self._client.metrics(key, [numbers])
            self.state.steps[key] = numbers.step

    def _send_steps(self, key: str) -> None:
        """Send the new records of a stage; steps that were sent before a resume are not sent again."""
        batch: list[Numbers] = []
        last, size = self.state.steps.get(key, 0), 0
        for record in self._stages[key].read():
            if record["step"] > last:
                numbers = Numbers(record["step"], round(record.get("time", 0) * 1000), stage_metrics(record))
                if size + len(numbers.values) > METRICS_PER_REQUEST:
                    self._send_batch(key, batch)
                    batch, size = [], 0
                batch.append(numbers)
                last, size = numbers.step, size + len(numbers.values)
        self._send_batch(key, batch)

    def _send_batch(self, key: str, batch: list[Numbers]) -> None:
        if batch:
            self.state.pending = [key, batch]
            self._save()
            self._send_pending()

    def _send_pending(self) -> None:
        if self.state.pending:
            key, steps = self.state.pending
            batch = [Numbers(*numbers) for numbers in steps]
            self._client.metrics(key, batch)
            self.state.steps[key], self.state.pending = batch[-1].step, []
            self._save()

    def close(self) -> None:
        for tail in [self._tail, *self._stages.values()]:
            tail.close()
