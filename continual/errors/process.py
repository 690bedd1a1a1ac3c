"""Run an action as a process: signals, the report of an error, the exit code, the end."""

import contextlib
import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from continual.errors.secrets import redacted
from continual.errors.sentences import describe, unwrap
from continual.errors.types import ConfigurationError, ContinualError, Interrupted, printable

SAME_SECONDS = {signal.SIGINT: 0.3, signal.SIGTERM: 2.0, signal.SIGHUP: 2.0}
"""A request to end comes more than once: `timeout` and batch systems signal the process and then its group."""


class _Requests:
    """The requests to end this process: when the last came, what fails it, and whether they wait for the moment."""

    def __init__(self) -> None:
        self.last = -math.inf
        self.failure: BaseException | None = None
        self.held = False

    def __call__(self, number: int, frame: object) -> None:
        """Raise what was given to `fail`, or KeyboardInterrupt; do nothing for the same request again."""
        failure, self.failure = self.failure, None
        if failure is not None and not self.held:
            raise failure
        now, before = time.monotonic(), self.last
        if not self.held and now - before > SAME_SECONDS.get(signal.Signals(number), 0.0):
            self.last = now
            raise KeyboardInterrupt


_requests = _Requests()


def fail(error: BaseException) -> None:
    """Raise an error in the main thread, from another one, if `exit_code_of` runs there."""
    handler: object = signal.getsignal(signal.SIGTERM)
    if handler is _requests:
        _requests.failure = error
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore requests to end, for a block that ends soon and must not be left half done."""
    held, _requests.held = _requests.held, True
    try:
        yield
    finally:
        _requests.held = held


@contextmanager
def _heard() -> Iterator[None]:
    """End the block with KeyboardInterrupt on Ctrl-C, on SIGTERM (`ray job stop`, batch systems) and on SIGHUP.

    What this process was told to ignore (`nohup`) it ignores.
    """
    before = {number: signal.getsignal(number) for number in SAME_SECONDS}
    _requests.last, _requests.failure = -math.inf, None
    for number, handler in before.items():
        if number == signal.SIGTERM or handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _requests)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_error(error: BaseException) -> None:
    """Print an error as one sentence on stderr; nobody may be there to read it."""
    text = error.short() if isinstance(error, ConfigurationError) else printable(str(error))
    with contextlib.suppress(OSError):
        print(redacted(f"error: {text}"), file=sys.stderr, flush=True)


def exit_code_of(action: Callable[[], None], report: Callable[[BaseException], None] = print_error) -> int:
    """Run `action` and return the exit code of the process; pass an error to `report`."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        with _heard():
            action()
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output, e.g. `head`, has enough. Nothing is left to be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ContinualError as error:
        # An error from a Ray task comes wrapped, with the task's traceback as its text.
        report(unwrap(error))
        return error.exit_code
    except Exception as error:
        # None is expected here; whoever meets one gets a sentence, and whoever mends it the traceback.
        with tempfile.NamedTemporaryFile("w", prefix="continual-", suffix=".txt", delete=False) as file:
            file.write(redacted(traceback.format_exc()))
        report(ContinualError(f"{describe(error)}; the traceback is in {file.name}"))
        return ContinualError.exit_code
    except KeyboardInterrupt:
        stopped = Interrupted()
        report(stopped)
        return stopped.exit_code
    return 0


def leave(code: int) -> NoReturn:
    """End the process at once: threads of libraries must not delay a driver that is done."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
