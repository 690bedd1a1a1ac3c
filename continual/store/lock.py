"""A lock on a file that ends with its owner, however the owner ends (flock: the kernel lets go)."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.errors import ContinualError


class Locked(ContinualError):
    """Another process holds the lock."""


def owner_of(path: Path) -> str | None:
    """Return who holds the lock on a file, None if nobody does; the file is neither made nor changed."""
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        pass
    return None


class FileLock:
    """`with FileLock(path):` waits for the lock; `with FileLock(path, wait=False):` raises Locked at once.

    `waiting(owner)` is called once if another process has it, before the wait begins. `of` says in the error what the
    lock's folder is.
    """

    def __init__(
        self, path: str | Path, wait: bool = True, waiting: Callable[[str], None] | None = None, of: str = "folder"
    ):
        self.path, self.wait, self.waiting, self.of = Path(path), wait, waiting, of
        self._file: Any = None

    def __enter__(self) -> "FileLock":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+")
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self._blocked()
                time.sleep(0.2)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"process {os.getpid()} on {os.uname().nodename} since {time.strftime('%F %T')}")
        self._file.flush()
        return self

    def _blocked(self) -> None:
        self._file.seek(0)
        owner = self._file.read().strip() or "another process"
        if not self.wait:
            self._file.close()
            problem = f"{self.path.parent}: another driver works on this {self.of} ({owner})"
            raise Locked(f"{problem}; wait for it or end it") from None
        if self.waiting is not None:
            self.waiting(owner)
            self.waiting = None

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()
