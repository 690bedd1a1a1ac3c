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

from continual.run.processes import HEAD, Processes, head_ended, is_alive

LOOK_SECONDS = 1.0
GRACE_SECONDS = 1.0
TRACKER_SECONDS = 60
AGAIN = "run the same command again to resume"


class Aftermath:
    """What the driver has told so far. `facts` has `log`, `folder`, `uri`, `session`, `head`, `cause` and `ended`."""

    def __init__(self, driver: int):
        self.driver = driver
        self.processes = Processes()
        self.facts: dict[str, Any] = {}
        self._head: dict[int, tuple[str, int]] = {}

    def watch(self) -> None:
        """Return when the driver has ended, or says that it is about to."""
        rest = b""
        while os.getppid() == self.driver and "ended" not in self.facts:
            ready = select.select([0, *self._head], [], [], LOOK_SECONDS)[0]
            self._look_at_head(ready)
            if 0 in ready:
                read = os.read(0, 65536)
                if not read:
                    break
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if leader := told.pop("leader", None):
                        self.processes.sessions.add(leader)
                    self._watch_head(told.get("head", {}))
                    self.facts |= told
            self.processes.look()

    def _watch_head(self, pids: dict[str, int]) -> None:
        for kind, pid in pids.items():
            with contextlib.suppress(OSError):
                self._head[os.pidfd_open(pid)] = (kind, pid)

    def _look_at_head(self, ready: list[int]) -> None:
        """Remember what of the head has ended before the driver, which cannot always say so itself.

        A driver that is killed takes its head along, while its threads still end one after another: only what a living
        driver has lost is a cause.
        """
        ended = [number for number in ready if number in self._head]
        if ended and 0 not in ready:
            time.sleep(GRACE_SECONDS)
            if is_alive(self.driver):
                first = min((self._head[number] for number in ended), key=lambda known: list(HEAD).index(known[0]))
                self.facts.setdefault("cause", head_ended(*first))
        for number in ended:
            del self._head[number]
            os.close(number)

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
