"""`python -m continual.run seq.yaml [key=value ...]`: arguments in, one call, exit code out."""

import argparse
from collections.abc import Sequence as Arguments

from continual import __version__
from continual.errors.process import exit_code_of

EPILOG = """exit codes: 0 done, 1 failed while running, 2 bad configuration or usage,
3 forgot more than --max-forgetting, 130 interrupted.
The same command again resumes; a finished run prints its result."""


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m continual.run",
        description="Learn tasks one after another and keep the old ones.",
        epilog=EPILOG,
    )
    command.add_argument("sequence", nargs="?", help="the sequence's YAML")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. train.learning_rate=1e-5 mitigation=[]"
    )
    command.add_argument("--plan", action="store_true", help="print what would run, and start nothing")
    command.add_argument(
        "--fresh", action="store_true", help="forget an earlier run of the same name (the store stays)"
    )
    command.add_argument("--max-forgetting", type=float, metavar="X", help="exit with 3 if more than X was forgotten")
    command.add_argument("--list", choices=["mitigations"], help="print every mitigation with its options")
    command.add_argument("--version", action="version", version=__version__)
    return command


def main(arguments: Arguments[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_intermixed_args(arguments)
    if options.list:
        from continual.cli.list import list_mitigations

        print(list_mitigations())
        return 0
    if not options.sequence:
        parser().error("name the sequence's YAML file, e.g. python -m continual.run seq.yaml")
    return exit_code_of(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from continual.config.load import load_sequence
    from continual.preflight.check import check

    loaded = load_sequence(options.sequence, options.overrides)
    notes = check(loaded)
    if options.plan:
        from continual.preflight.plan import make_plan
        from continual.preflight.render import render

        print(render(make_plan(loaded)))
        for note in notes:
            print(f"note: {note}")
        return
    from continual.run.execute import execute
    from continual.run.summary import gate

    summary = execute(loaded, notes, options.fresh)
    if options.max_forgetting is not None:
        gate(summary, options.max_forgetting)
