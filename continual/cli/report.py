"""The command `report`: one HTML page about runs and associations."""

import argparse
from collections.abc import Sequence as Arguments
from pathlib import Path

from continual.errors import ContinualError
from continual.errors.process import exit_code_of

EPILOG = "Figures are also written as PNG files, into a folder next to the page that has its name without `.html`."


def parser(prog: str = "python -m continual.report") -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog=prog,
        description="Write one self-contained HTML page about a run, several runs side by side, or associations.",
        epilog=EPILOG,
    )
    command.add_argument(
        "runs", nargs="+", metavar="RUN_DIR",
        help="folder of a run or of associations, <storage>/<name>, or a storage: all of them",
    )  # fmt: skip
    page = "the page; default: report.html in the folder; for several, in the current folder"
    command.add_argument("--output", metavar="FILE", help=page)
    return command


def main(arguments: Arguments[str] | None = None, prog: str = "python -m continual.report") -> int:
    """Run the command line; return the exit code: 0 done, 1 failed, 2 for a folder that is not a run."""
    options = parser(prog).parse_args(arguments)
    return exit_code_of(lambda: _report(options))


def _report(options: argparse.Namespace) -> None:
    from continual.show.report import write_report

    try:
        page = write_report([Path(run) for run in options.runs], Path(options.output) if options.output else None)
    except OSError as error:
        raise ContinualError(f"the report cannot be written: {error}") from error
    print(f"report: {page}")
