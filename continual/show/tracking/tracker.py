"""The class that the driver records with. No call waits for MLflow: a thread sends what the spool holds."""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from continual.show.tracking.names import clean, flatten
from continual.show.tracking.sender import Sender
from continual.show.tracking.spool import Spool

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two sendings: steps gather to one request instead of costing the driver's CPU one each."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts at a tracker that is down; they double up to here."""
LAST_ATTEMPTS = 3
"""Attempts of `close`, half a second apart."""


class Tracker:
    """Runs, metrics and artifacts of one run folder, by logical keys ("sequence", "stage-1", ...).

    Every call appends a record to `<folder>/mlflow/spool.jsonl` and returns. A background thread sends the records to
    MLflow in order and keeps its position and the run ids in `<folder>/mlflow/state.json`; a tracker that is down
    lets them wait, and the next Tracker of the folder goes on. Not for two processes at once (the run's lock).
    """

    def __init__(self, folder: Path, uri: str, experiment: str, enabled: bool = True):
        self.enabled, self.uri = enabled, uri
        if not enabled:
            return
        self._spool = Spool(folder / "mlflow" / "spool.jsonl")
        self._started: set[str] = set()
        self._steps: dict[tuple[str, str], int] = {}
        self._recall()
        self._sender = Sender(folder / "mlflow" / "state.json", uri, experiment, self._spool.id)
        self._condition = threading.Condition()
        self._urgent = self._closing = False
        self._thread: threading.Thread | None = None
        if self.waiting:
            self._wake()

    def _recall(self) -> None:
        """Take from the spool which runs are started and which steps are recorded already."""
        for entry in self._spool.read():
            record = entry.record
            if record["kind"] == "start":
                self._started.add(record["key"])
            elif record["kind"] == "metrics":
                self._steps |= {(record["key"], name): record["step"] for name in record["values"]}

    @property
    def waiting(self) -> int:
        """Records that MLflow does not have yet."""
        return self._spool.count - self._sender.state.sent if self.enabled else 0

    def start_run(
        self,
        key: str,
        name: str,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the run of this key, or open it again. `parent` is a key; `params` may be nested."""
        if not self.enabled:
            return
        if parent is not None and parent not in self._started:
            raise ValueError(f"start_run({parent!r}) has to come before its child {key!r}")
        self._started.add(key)
        self._append("start", key, name=name, parent=parent, tags=dict(tags or {}), params=flatten(params or {}))

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step. A step that a metric has already reached is dropped: a resumed run repeats its steps."""
        if not self.enabled:
            return
        new = {clean(name): float(value) for name, value in values.items()}
        new = {name: value for name, value in new.items() if self._steps.get((key, name), step - 1) < step}
        if new:
            self._append("metrics", key, values=new, step=step)
            self._steps |= {(key, name): step for name in new}

    def tags(self, key: str, tags: Mapping[str, str]) -> None:
        self._append("tags", key, tags=dict(tags))

    def artifact(self, key: str, path: Path, folder: str | None = None) -> None:
        """A file, or a folder's content, as it is when it is sent; below `folder` of the run's artifacts."""
        self._append("artifact", key, path=str(Path(path).absolute()), folder=folder)

    def text(self, key: str, text: str, file: str) -> None:
        """A small text as artifact `file`; the spool keeps a copy."""
        self._append("text", key, text=text, file=file)

    def table(self, key: str, columns: Mapping[str, list[Any]], file: str) -> None:
        """Columns of equal length as artifact `file` (.json), which MLflow shows as a table."""
        self._append("table", key, columns={name: list(column) for name, column in columns.items()}, file=file)

    def dataset(
        self,
        key: str,
        name: str,
        digest: str,
        source: str,
        context: str,
        profile: Mapping[str, Any] | None = None,
        schema: Mapping[str, str] | None = None,
    ) -> None:
        """An input of the run: `context` says what for, `profile` holds counts, `schema` maps column to type."""
        self._append(
            "dataset", key, name=name, digest=digest, source=source, context=context,
            profile=dict(profile or {}), schema=dict(schema or {}),
        )  # fmt: skip

    def register(self, key: str, name: str, path: Path, tags: Mapping[str, str]) -> None:
        """The model folder of a run as a new version of the registered model `name`, once per key."""
        self._append("register", key, name=name, path=str(Path(path).absolute()), tags=dict(tags))

    def finish(self, key: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run; one that was never started is left alone, so that an early failure stays the one reported."""
        if self.enabled and key in self._started:
            self._append("finish", key, status=status)

    def run_id(self, key: str) -> str | None:
        """The MLflow run of this key, as far as the tracker has answered."""
        return self._sender.state.runs.get(key) if self.enabled else None

    def wait_for(self, key: str, timeout: float) -> str | None:
        """`run_id`, after at most `timeout` seconds for a tracker that answers late."""
        if self.enabled:
            with self._condition:
                self._urgent = True
                self._condition.notify_all()
                self._condition.wait_for(lambda: self.run_id(key) is not None, timeout)
                self._urgent = False
        return self.run_id(key)

    def close(self, timeout: float = 10.0) -> int:
        """Send what waits, for at most `timeout` seconds; returns how many records still wait for a later process."""
        if not self.enabled:
            return 0
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        if self.waiting:
            log.warning("%d records for MLflow at %s wait in %s", self.waiting, self.uri, self._spool.path)
        self._spool.close()
        return self.waiting

    def _append(self, kind: str, key: str, **content: Any) -> None:
        if not self.enabled:
            return
        if key not in self._started:
            raise ValueError(f"start_run({key!r}) has to come before anything else of this run")
        self._spool.append({"kind": kind, "key": key, "time": time.time_ns() // 1_000_000, **content})
        self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        with self._condition:  # held by the thread only between its waits, never while it sends
            self._condition.notify_all()

    def _work(self) -> None:
        failures = last_attempts = 0
        while True:
            self._pause(failures)
            if self._closing:
                if not self.waiting or last_attempts == LAST_ATTEMPTS:
                    return
                last_attempts += 1
            failures = 0 if self._send(failures) else failures + 1
            if self._closing and failures:
                time.sleep(0.5)

    def _pause(self, failures: int) -> None:
        """Until something waits, then a little longer; `close` cuts it short, and `wait_for` while nothing fails."""
        with self._condition:
            self._condition.wait_for(lambda: self._closing or self.waiting)
            pause = min(LONGEST_PAUSE, PAUSE * 2 ** min(failures, 10))
            self._condition.wait_for(lambda: self._closing or (self._urgent and not failures), pause)

    def _send(self, failures: int) -> bool:
        """One attempt at all that waits; whether it went through."""
        try:
            self._sender.send(self._spool)
        except Exception as error:
            # Whatever is wrong with the tracker, training goes on: the records wait.
            if not failures:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                log.warning("MLflow at %s does not take records, they wait: %s", self.uri, reason[:300])
            return False
        finally:
            with self._condition:
                self._condition.notify_all()
        if failures:
            log.info("MLflow at %s takes records again", self.uri)
        return True
