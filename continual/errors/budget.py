"""How much is read before a run: whatever a file holds, a check and an estimate end soon."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ALL = 128 << 20
"""What a whole check, or a plan, may cost: two seconds' work."""
DOCUMENT = 4 << 20
"""Bytes, or characters, of the longest document that is looked at before a run."""
LINE = 64
"""What a line or a value costs in addition to its bytes, because reading a blank one takes time, too."""


class Enough(Exception):
    """What may be read before a run has been read."""


class _Budget:
    def __init__(self, left: int, within: "_Budget | None"):
        self.left, self.within = left, within

    def spend(self, amount: int) -> None:
        if self.left < 0:
            raise Enough  # before more is read: what was paid for is used
        self.left -= amount
        if self.within is not None:
            self.within.spend(amount)


_current: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def limited(most: int) -> Iterator[None]:
    """Let what is read in the block cost at most so many bytes, and at most what is left of a limit around it."""
    before = _current.set(_Budget(most, _current.get()))
    try:
        yield
    finally:
        _current.reset(before)


def is_limited() -> bool:
    """Return whether a limit holds here; there is none in a run."""
    return _current.get() is not None


def spend(amount: int) -> None:
    """Count what is read. Raises Enough if more than may be was read before."""
    budget = _current.get()
    if budget is not None:
        budget.spend(amount)


def reaches(size: int) -> None:
    """Raise Enough if a document of so many bytes, or more, is too long to be looked at before a run."""
    if size > DOCUMENT and is_limited():
        raise Enough
