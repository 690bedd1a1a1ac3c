"""What is done when a driver ends, from a process beside it: `python -m continual.run.aftermath PID`.

A driver that is killed, or that Ray's core ends when the head of its cluster is gone, can do nothing any more. This
process then says so, ends what the driver's own cluster still runs, and closes the runs in the tracker. It also ends
what an orderly end leaves. It hears from the driver by lines of JSON on standard input (`continual.run.guard`).
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from continual.run.processes import Processes

LOOK_SECONDS = 1.0
TRACKER_SECONDS = 60
AGAIN = "run the same command again to resume"


class Aftermath:
    """What the driver has told so far. `facts` has `log`, `folder`, `uri`, `session`, `cause` and `ended`."""

    def __init__(self, driver: int):
        self.driver = driver
        self.processes = Processes()
        self.facts: dict[str, Any] = {}

    def watch(self) -> None:
        """Return when the driver has ended, or says that it is about to."""
        rest = b""
        while os.getppid() == self.driver and "ended" not in self.facts:
            if select.select([0], [], [], LOOK_SECONDS)[0]:
                read = os.read(0, 65536)
                if not read:
                    break
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if leader := told.pop("leader", None):
                        self.processes.sessions.add(leader)
                    self.facts |= told
            self.processes.look()

    def finish(self) -> None:
        """Do what is left to be done."""
        ended = "ended" in self.facts
        if not ended:
            self._say()
        self.processes.end()
        self.processes.free_memory()
        if ended:
            if self.facts["ended"] and "session" in self.facts:
                shutil.rmtree(self.facts["session"], ignore_errors=True)
        elif self.facts.get("uri"):
            signal.alarm(TRACKER_SECONDS)
            self._close_runs()

    def _say(self) -> None:
        killed = f"the driver (process {self.driver}) ended without a word: it was killed, or memory ran out"
        sentence = f"error: {self.facts.get('cause') or killed}; {AGAIN}"
        with contextlib.suppress(OSError):
            print(f"\n{sentence}" if sys.stderr.isatty() else sentence, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError), Path(self.facts["log"]).open("a") as log:
            log.write(f"[continual {time.strftime('%H:%M:%S')}] {sentence}\n")

    def _close_runs(self) -> None:
        from continual.show.tracking.client import close_runs

        with contextlib.suppress(Exception):
            close_runs(Path(self.facts["folder"]), self.facts["uri"])


def main() -> None:
    """Watch the driver of the command line, and clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    aftermath = Aftermath(int(sys.argv[1]))
    aftermath.watch()
    aftermath.finish()


if __name__ == "__main__":
    main()
