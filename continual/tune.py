"""`python -m continual.tune ablation.yaml [key=value ...]`: arguments in, one call, exit code out."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence as Arguments
from pathlib import Path

from continual import __version__
from continual.errors import ContinualError, Interrupted
from continual.sweep.schema import load_ablation
from continual.sweep.sweep import plan_text, prepare, run_sweep

EPILOG = """exit codes: 0 done, 1 a trial failed, 2 bad configuration or usage, 130 interrupted.
The same command again resumes; a finished sweep prints its table."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m continual.tune",
        description="Run a sequence under many settings and seeds, and compare.",
        epilog=EPILOG,
    )
    found.add_argument("ablation", help="the sweep's YAML")
    found.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys of the sweep (concurrency=2) or of every sequence"
    )
    found.add_argument("--plan", action="store_true", help="print what would run and what is shared; start nothing")
    found.add_argument("--fresh", action="store_true", help="forget earlier trials of this sweep (the store stays)")
    found.add_argument("--version", action="version", version=__version__)
    return found


def main(arguments: Arguments[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_intermixed_args(arguments)
    sys.path.insert(0, str(Path.cwd()))
    # `ray job stop` ends a driver with SIGTERM: the same clean end as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sweep = prepare(load_ablation(options.ablation, options.overrides), options.fresh)
        if options.plan:
            print(plan_text(sweep))
            return 0
        run_sweep(sweep, options.fresh)
    except ContinualError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        stopped = Interrupted("interrupted; the same command goes on where it stopped")
        print(f"error: {stopped}", file=sys.stderr)
        return stopped.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # As in continual.run: threads of libraries must not hold up the end.
    os._exit(code)
