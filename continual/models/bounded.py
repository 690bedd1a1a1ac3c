"""Templates that end: before a run one may loop for so long and no longer."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from continual.errors.budget import Enough, is_limited, spend

SECONDS = 0.5
"""How long a template may take before a run, in seconds of the processor; a usual one takes a thousandth."""
SLOW = 0.05
"""Seconds from which on a template counts towards the limit for all that is done before a run."""
SECOND = 64 << 20
"""What a second costs there, in bytes."""
TEMPLATE = "<template>"
"""What jinja2 calls the code that it makes of a text."""


class Endless(RuntimeError):
    """A template that takes too long."""


@contextmanager
def ended() -> Iterator[None]:
    """Raise Endless, before a run, if templates that are rendered in the block take too long; in a run do nothing.

    The loops of a template are watched line by line, so it ends wherever it is, in any thread.
    """
    if not is_limited():
        yield
        return
    _pay(0)
    begun = time.thread_time()

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != TEMPLATE:
            return None
        if time.thread_time() - begun > SECONDS:
            raise Endless(f"it takes more than {SECONDS:g} seconds")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)
        seconds = time.thread_time() - begun
        if seconds > SLOW:
            _pay(round(seconds * SECOND))


def _pay(amount: int) -> None:
    try:
        spend(amount)
    except Enough as error:
        raise Endless("its conversations take too long") from error
