"""The processes that a local cluster started, found by the sessions of its head processes, and their shared memory.

Needs Linux's /proc, and finds nothing elsewhere.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from continual.errors.foreign import PERHAPS_MEMORY

PROC, MEMORY = Path("/proc"), Path("/dev/shm")
UNNAMED = ("psm_", "torch_")
"""Shared memory that vLLM and torch make under a random name, and that a killed process leaves."""
HEAD = {"gcs_server": "control service (GCS)", "raylet": "raylet"}
"""The processes without which a cluster cannot go on, and their names for users. A raylet ends when the GCS is gone."""


def head_ended(kind: str, pid: int) -> str:
    """Return the beginning of the sentence that says which process of the head has ended."""
    return f"Ray's {HEAD[kind]}, process {pid}, {PERHAPS_MEMORY}"


def _facts(pid: int) -> tuple[int, int, str] | None:
    """Return parent, session and start time of a living process; the latter tells it from a later one of its number."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[3]), fields[19])


def is_alive(pid: int) -> bool:
    """Return whether a process is there and has not begun to end."""
    return _facts(pid) is not None


def _numbers() -> list[int]:
    try:
        return [int(path.name) for path in PROC.iterdir() if path.name.isdecimal()]
    except OSError:
        return []


class Processes:
    """The processes of `sessions` and all that they have started, as far as `look` has seen them."""

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        self._seen: dict[int, str] = {}
        self._memory: dict[Path, int] = {}

    def look(self) -> None:
        """Remember the processes that are there now, and the shared memory that they hold open."""
        facts = {pid: known for pid in _numbers() if (known := _facts(pid))}
        self._seen = {pid: start for pid, start in self._seen.items() if pid in facts and facts[pid][2] == start}
        found = {pid for pid, (_, session, _) in facts.items() if session in self.sessions} | set(self._seen)
        while more := {pid for pid, (parent, _, _) in facts.items() if parent in found} - found:
            found |= more
        for pid in found:
            self._seen[pid] = facts[pid][2]
            self._remember_memory(pid)

    def _remember_memory(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            for link in (PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    path = link.readlink()
                    if path.parent == MEMORY and path.name.startswith(UNNAMED):
                        self._memory[path] = path.stat().st_ino

    def end(self, seconds: float = 5.0) -> int:
        """Kill what still lives, and wait until it is gone; return how many processes that were."""
        killed: set[int] = set()
        deadline = time.monotonic() + seconds
        while True:
            self.look()
            if not self._seen or time.monotonic() > deadline:
                return len(killed)
            for pid in self._seen:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)

    def free_memory(self) -> None:
        """Remove the shared memory that was opened and that no process has open any more."""
        held = set()
        for pid in _numbers():
            with contextlib.suppress(OSError):
                for link in (PROC / str(pid) / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        held.add(link.readlink())
        for path, inode in self._memory.items():
            with contextlib.suppress(OSError):
                if path not in held and path.stat().st_ino == inode:
                    path.unlink()
