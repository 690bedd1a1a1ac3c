"""What all command lines share: signals, errors as one sentence on stderr, exit codes."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from continual.errors import ContinualError, Interrupted, unwrap


def exit_code_of(action: Callable[[], None]) -> int:
    """Run `action` and return the exit code of the command; print an error as one sentence."""
    sys.path.insert(0, str(Path.cwd()))
    # `ray job stop` ends a driver with SIGTERM: stop as cleanly as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        action()
    except ContinualError as error:
        # An error from a Ray task comes wrapped, with the task's traceback as its text.
        print(f"error: {unwrap(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        stopped = Interrupted("interrupted; run the same command again to resume")
        print(f"error: {stopped}", file=sys.stderr)
        return stopped.exit_code
    return 0


def leave(code: int) -> NoReturn:
    """End the process at once: threads of libraries must not delay a driver that is done."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
