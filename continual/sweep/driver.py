"""Run one trial: `python -m continual.sweep.driver`, started by `continual.sweep.trainable`.

This is `continual.run` with two pipes. The first line of standard input is the request. After every stage the driver
writes a report to standard output, and continues when it has read a line. A report with `error` is the last one.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from continual.config.load import load_sequence
from continual.errors import Interrupted
from continual.errors.process import exit_code_of, leave
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import read_events
from continual.preflight.check import check_quickly
from continual.run.execute import execute
from continual.store.lock import FileLock
from continual.sweep.results import figures_after


class Pipes:
    """The pipes to the trial. When the trial's end of standard input closes, this process ends at once.

    Files on disk are complete at any moment, and the run's lock must be free for the next start.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        # What libraries print to standard output is not a report.
        os.dup2(2, 1)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        os._exit(1)

    def read(self) -> str:
        """Wait for a line."""
        while True:
            try:
                return self._lines.get(timeout=0.5)  # waiting without a timeout would block Ctrl-C
            except queue.Empty:
                continue

    def write(self, report: dict[str, Any]) -> None:
        """Write a report."""
        print(json.dumps(report), file=self._out, flush=True)

    def fail(self, error: BaseException) -> None:
        """Report an error; an interrupted trial has not failed."""
        if not isinstance(error, Interrupted):
            self.write({"error": str(error)})


def run(pipes: Pipes) -> None:
    """Run the requested sequence."""
    request = json.loads(pipes.read())
    loaded = load_sequence(request["sequence"], request["given"], request["set"], Path(request["folder"]))

    def after_stage(stage: int) -> None:
        scored = read_events(loaded.run_folder, "scored")
        values = figures_after(loaded.sequence, scored, stage)
        pipes.write({"stage": stage, **values})
        pipes.read()

    # The sweep has made the whole check of every trial. Loading lm-eval and the model again would cost each seconds.
    notes = check_quickly(loaded)
    # A driver whose sweep was killed may need a moment to notice.
    with FileLock(RunFolder(loaded.run_folder).lock, of="run"):
        pass
    execute(loaded, notes, fresh=False, after_stage=after_stage)


def main() -> int:
    """Run the requested sequence; return the exit code of `continual.run`."""
    # Ray blocks SIGINT in its workers, and their children inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes = Pipes()
    return exit_code_of(lambda: run(pipes), pipes.fail)


if __name__ == "__main__":
    leave(main())
