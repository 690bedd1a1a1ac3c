"""The command `run`: a sequence from its YAML to its result."""

import argparse
import math
from collections.abc import Sequence as Arguments

from continual.cli import list as lists
from continual.cli.parsing import new_parser, say_first
from continual.errors import redacted
from continual.errors.process import exit_code_of

EPILOG = """The same command again resumes a run; a finished run prints its result.

exit codes:
  0    done
  1    the run failed
  2    bad configuration or usage
  3    forgot more than --max-forgetting
  130  interrupted"""


def parser(prog: str = "python -m continual.run") -> argparse.ArgumentParser:
    command = new_parser(prog, "Fine-tune a model on task after task, and measure and prevent forgetting.", EPILOG)
    command.add_argument("sequence", nargs="?", help="the sequence's YAML")
    example = "train.learning_rate=1e-5 or mitigation=[]"
    overrides = f"replaces a value of the YAML, e.g. {example}"
    command.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
    command.add_argument("--plan", action="store_true", help="print what would run and start nothing")
    fresh = "delete the run of this name and begin again; the store is kept"
    command.add_argument("--fresh", action="store_true", help=fresh)
    gate = "exit with code 3 if `forgetting` or `forgetting_old` is above X beyond its error"
    command.add_argument("--max-forgetting", type=_finite, metavar="X", help=gate)
    command.add_argument("--list", choices=lists.LISTS, help="print all of these with their options")
    return command


def _finite(text: str) -> float:
    """Return a finite number: nothing is above nan, which would let everything pass."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def main(arguments: Arguments[str] | None = None, prog: str = "python -m continual.run") -> int:
    """Run the command line; return the exit code."""
    options = parser(prog).parse_intermixed_args(arguments)
    if options.list:
        return lists.main([options.list])
    if not options.sequence:
        parser(prog).error(f"name the sequence's YAML file, e.g. {prog} seq.yaml")
    return exit_code_of(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.plan:
        say_first()
    from continual.preflight.check import load_checked

    loaded, notes = load_checked(options.sequence, options.overrides, options.fresh)
    if options.max_forgetting is not None:
        from continual.preflight.check_evaluation import check_limits

        check_limits(loaded.sequence, options.max_forgetting)
    if options.plan:
        from continual.ledger.changes import refuse_changes
        from continual.preflight.plan import make_plan
        from continual.preflight.render import render

        lines = [render(make_plan(loaded)), *(f"note: {note}" for note in notes)]
        print(redacted("\n".join(lines)))
        if not options.fresh:
            from continual.run.found import foreseen

            refuse_changes(loaded.run_folder, loaded)  # as the run would be
            for note in foreseen(loaded):
                print(redacted(f"note: {note}"))
        return
    from continual.run.execute import execute
    from continual.run.gate import gate, limits_of

    summary = execute(loaded, notes, options.fresh)
    for note in gate(summary, limits_of(loaded.sequence, options.max_forgetting), loaded.sequence):
        print(f"note: {note}")
