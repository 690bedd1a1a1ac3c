"""`python -m continual.report RUN_DIR [RUN_DIR ...] [--output FILE]`: arguments in, one call, exit code out."""

import argparse
import sys
from collections.abc import Sequence as Arguments
from pathlib import Path

from continual.errors import ContinualError

EPILOG = "Figures are written as PNG too, into a folder beside the page that has its name without `.html`."


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m continual.report",
        description="One self-contained HTML page about a run, or about several side by side.",
        epilog=EPILOG,
    )
    found.add_argument("runs", nargs="+", metavar="RUN_DIR", help="a run's folder, <storage>/<name>")
    found.add_argument(
        "--output", metavar="FILE", help="the page; default: report.html in the run's folder, or here for several"
    )
    return found


def main(arguments: Arguments[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 a folder that is no run."""
    options = parser().parse_args(arguments)
    try:
        from continual.report import write_report

        page = write_report([Path(run) for run in options.runs], Path(options.output) if options.output else None)
    except ContinualError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: the report cannot be written: {error}", file=sys.stderr)
        return 1
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
