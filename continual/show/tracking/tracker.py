"""The thread that keeps MLflow up to date with a run's own files. No call of the driver waits for MLflow."""

import logging
import threading
import time
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from continual.errors import redacted
from continual.show.tracking.sender import Sender

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two sendings: steps gather to one request instead of costing the driver's CPU one each."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts at a tracker that is down; they double up to here."""
LAST_ATTEMPTS = 3
"""Attempts of `close`, half a second apart."""


class Tracker:
    """Sends a file of events and the records of the stages next to it to MLflow, from a background thread.

    The first event is `run`. How far the files were sent is kept in `mlflow/state.json` next to them: while a tracker
    is down they wait, and the next Tracker continues; one in the same process when the last attempts of the one before
    are over. Not for two processes at once (the run's lock).
    """

    _newest: ClassVar[WeakValueDictionary[Path, "Tracker"]] = WeakValueDictionary()
    """By the file of events; one that works is held by its thread."""

    def __init__(self, events: Path, uri: str, experiment: str | None = None, enabled: bool = True):
        self.enabled, self.uri, self.events = enabled, uri, events
        if not enabled:
            return
        self._experiment, self._sender = experiment, Sender(events, uri, experiment)
        self._before = self._newest.get(events)
        self._newest[events] = self
        self._condition = threading.Condition()
        self._urgent = self._closing = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events and records that MLflow does not have yet; reads the files."""
        return sum(1 for _ in self._sender.waiting()) if self.enabled else 0

    def run_id(self, key: str) -> str | None:
        """Return the MLflow run of a logical key, as far as the tracker has answered."""
        return self._sender.state.runs.get(key) if self.enabled else None

    def wait_for(self, key: str, timeout: float) -> str | None:
        """Return `run_id`, after at most `timeout` seconds if the tracker answers late."""
        if self.enabled:
            with self._condition:
                self._urgent = True
                self._condition.notify_all()
                self._condition.wait_for(lambda: self.run_id(key) is not None, timeout)
                self._urgent = False
        return self.run_id(key)

    def close(self, timeout: float = 10.0) -> int:
        """Send what waits, for at most `timeout` seconds; return how many records still wait for a later process."""
        if not self.enabled:
            return 0
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join(timeout)
        if waiting := self.waiting:
            log.warning("%d records for MLflow at %s wait in %s", waiting, redacted(self.uri), self.events.parent)
        return waiting

    def _work(self) -> None:
        self._wait_for_the_one_before()
        failures = last_attempts = 0
        while True:
            closing = self._closing  # what was written before close() is sent by an attempt that begins after it
            failures = 0 if self._send(failures) else failures + 1
            if not closing:
                self._pause(failures)
            elif not failures or last_attempts == LAST_ATTEMPTS:
                self._sender.close()
                return
            else:
                last_attempts += 1
                time.sleep(0.5)

    def _wait_for_the_one_before(self) -> None:
        """Begin where a tracker ends that was closed and still works on a request; two would send everything twice."""
        before, self._before = self._before, None
        if before is not None and before._closing and before._thread.is_alive():
            before._thread.join()
            self._sender = Sender(self.events, self.uri, self._experiment)

    def _pause(self, failures: int) -> None:
        """Wait for the next attempt; `close` cuts it short, and `wait_for` while nothing fails."""
        with self._condition:
            pause = min(LONGEST_PAUSE, PAUSE * 2 ** min(failures, 10))
            self._condition.wait_for(lambda: self._closing or (self._urgent and not failures), pause)

    def _send(self, failures: int) -> bool:
        """Attempt once to send all that waits; return whether that succeeded."""
        try:
            self._sender.send()
        except Exception as error:
            # Whatever is wrong with the tracker, training continues: the records wait.
            if not failures:
                reason = redacted(next(iter(str(error).splitlines()), type(error).__name__))[:300]
                log.warning("MLflow at %s does not take records, they wait: %s", redacted(self.uri), reason)
            return False
        finally:
            with self._condition:
                self._condition.notify_all()
        if failures:
            log.info("MLflow at %s takes records again", redacted(self.uri))
        return True
