"""The driver of one trial: `python -m continual.sweep.driver`, started by the trial (see `continual.sweep.trainable`).

It is `continual.run` with two pipes. The first line of its standard input is the request; after every stage it writes a
report to its standard output and goes on when it has read a line. A report that says `error` is its last word.
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
from continual.errors import ContinualError
from continual.ledger.ledger import read_events
from continual.preflight.check import check
from continual.run.execute import execute
from continual.store.lock import FileLock
from continual.sweep.results import figures_after, mean_score


class Pipes:
    """The two pipes. When the reading one ends, whoever started this process is gone, and it ends too, at once:
    what is on disk is whole at any moment, and the run's lock must be free for the next start."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        # What libraries print to standard output is no report.
        os.dup2(2, 1)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        os._exit(1)

    def read(self) -> str:
        while True:
            try:
                return self._lines.get(timeout=0.5)  # a wait without an end would not see Ctrl-C
            except queue.Empty:
                continue

    def write(self, report: dict[str, Any]) -> None:
        self._out.write(json.dumps(report) + "\n")
        self._out.flush()


def main() -> int:
    """Run the requested sequence; returns the exit code of `continual.run`."""
    # Ray blocks SIGINT in its workers, and their children inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.path.insert(0, str(Path.cwd()))
    pipes = Pipes()
    try:
        request = json.loads(pipes.read())
        loaded = load_sequence(request["sequence"], request["given"], request["set"], Path(request["folder"]))

        def after_stage(stage: int) -> None:
            scored = read_events(loaded.run_folder, "scored")
            values = figures_after(loaded.sequence, scored, stage)
            halved = {"mean_score": mean_score(loaded.sequence, scored, stage)} if request["halve"] else {}
            pipes.write({"stage": stage, **values, **halved})
            pipes.read()

        notes = check(loaded)
        # A driver that was killed with its sweep may need a moment to notice.
        with FileLock(loaded.run_folder / "lock"):
            pass
        execute(loaded, notes, fresh=False, after_stage=after_stage)
    except ContinualError as error:
        pipes.write({"error": str(getattr(error, "cause", error))})
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # As in continual.run: threads of libraries must not hold up the end.
    os._exit(code)
