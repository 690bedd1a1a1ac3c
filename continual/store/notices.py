"""What the store says to the user: that it waits, and that it makes a thing again. The terminal of a run listens."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

EVERY_SECONDS = 10.0
"""How often a process without a terminal of its own says how long it has waited."""


class Listener(Protocol):
    """Whoever shows notices to the user."""

    def line(self, text: str) -> None:
        """Show a line."""

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """Show what is waited for, and count the seconds, until the block ends."""


class Plain:
    """Notices on standard error, for a process without a terminal of its own; Ray carries them into the log."""

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        begun, over = time.monotonic(), threading.Event()
        self.line(what)

        def count() -> None:
            while not over.wait(EVERY_SECONDS):
                self.line(f"{what} ... {time.monotonic() - begun:.0f} s")

        threading.Thread(target=count, daemon=True).start()
        try:
            yield
        finally:
            over.set()


_listeners: list[Listener] = [Plain()]


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let `listener` show the notices of this process while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def say(text: str) -> None:
    """Show the user a line."""
    _listeners[-1].line(text)


def waiting(what: str) -> AbstractContextManager[object]:
    """Show the user what is waited for, and for how long, until the block ends."""
    return _listeners[-1].waiting(what)
