"""A lock on a file that ends with its owner, however the owner ends (flock: the kernel lets go)."""

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from continual.errors import ContinualError
from continual.store import notices

POLL_SECONDS, SILENT_SECONDS = 0.2, 0.5
"""How often a lock is tried, and how long a wait is too short to be worth a line."""
LONGEST = 200
"""Characters that are read of what a lock's file says of its owner."""


class Locked(ContinualError):
    """Another process holds the lock."""


def _owner(file: Any) -> str:
    """Return who holds a lock by what its file says."""
    text = "".join(character if character.isprintable() else " " for character in file.read(LONGEST))
    return " ".join(text.split()) or "another process"


def owner_of(path: Path) -> str | None:
    """Return who holds the lock on a file, None if nobody does; the file is neither made nor changed."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _owner(file)
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        pass
    return None


class FileLock:
    """`with FileLock(path):` waits for the lock; `with FileLock(path, wait=False):` raises Locked at once.

    A wait is shown to the user, with its owner and its seconds (`continual.store.notices`). `of` says what it is that
    two processes must not work on at once.
    """

    def __init__(self, path: str | Path, wait: bool = True, of: str = "folder"):
        self.path, self.wait, self.of = Path(path), wait, of
        self._file: Any = None

    def __enter__(self) -> "FileLock":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+", encoding="utf-8", errors="replace")
        try:
            if not self._taken():
                self._wait()
        except BaseException:
            self._file.close()
            raise
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"process {os.getpid()} on {os.uname().nodename} since {time.strftime('%F %T')}")
        self._file.flush()
        return self

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait(self) -> None:
        """Wait for the lock. Raises Locked instead if that is not wanted."""
        self._file.seek(0)
        owner = _owner(self._file)
        if not self.wait:
            problem = f"{self.path.parent}: another driver works on this {self.of} ({owner})"
            raise Locked(f"{problem}; wait for it or end it")
        deadline = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            if self._taken():
                return
        with notices.waiting(f"another process works on this {self.of}; waiting for it ({owner})"):
            while not self._taken():
                time.sleep(POLL_SECONDS)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()
