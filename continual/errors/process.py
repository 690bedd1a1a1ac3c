"""Run an action as a process: signals, the report of an error, the exit code, the end."""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from continual.errors.secrets import redacted
from continual.errors.sentences import describe, unwrap
from continual.errors.types import ConfigurationError, ContinualError, Interrupted


def print_error(error: BaseException) -> None:
    """Print an error as one sentence on stderr."""
    text = error.short() if isinstance(error, ConfigurationError) else str(error)
    print(redacted(f"error: {text}"), file=sys.stderr)


def exit_code_of(action: Callable[[], None], report: Callable[[BaseException], None] = print_error) -> int:
    """Run `action` and return the exit code of the process; pass an error to `report`."""
    sys.path.insert(0, str(Path.cwd()))
    # `ray job stop` ends a driver with SIGTERM: stop as cleanly as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
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
        stopped = Interrupted("interrupted; run the same command again to resume")
        report(stopped)
        return stopped.exit_code
    return 0


def leave(code: int) -> NoReturn:
    """End the process at once: threads of libraries must not delay a driver that is done."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
