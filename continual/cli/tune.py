"""The command `tune`: a sweep over settings and seeds of a sequence."""

import argparse
from collections.abc import Sequence as Arguments

from continual.cli.parsing import new_parser, say_first
from continual.errors import redacted
from continual.errors.process import exit_code_of
from continual.sweep.execute import run_sweep
from continual.sweep.spec import load_ablation
from continual.sweep.sweep import plan_text, prepare

EPILOG = """The same command again resumes a sweep; a finished sweep prints its table.

exit codes:
  0    done
  1    a trial failed
  2    bad configuration or usage
  130  interrupted"""


def parser(prog: str = "python -m continual.tune") -> argparse.ArgumentParser:
    command = new_parser(prog, "Run a sequence under many settings and seeds, and compare the results.", EPILOG)
    command.add_argument("ablation", help="the sweep's YAML")
    overrides = "keys of the sweep (concurrency=2) or of all sequences"
    command.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
    command.add_argument("--plan", action="store_true", help="print what would run and what is shared; start nothing")
    command.add_argument("--fresh", action="store_true", help="forget earlier trials of this sweep (the store stays)")
    return command


def main(arguments: Arguments[str] | None = None, prog: str = "python -m continual.tune") -> int:
    """Run the command line; return the exit code."""
    options = parser(prog).parse_intermixed_args(arguments)
    return exit_code_of(lambda: _tune(options))


def _tune(options: argparse.Namespace) -> None:
    if options.plan:
        say_first()
    sweep = prepare(load_ablation(options.ablation, options.overrides), options.fresh)
    if options.plan:
        print(redacted(plan_text(sweep)))
    else:
        run_sweep(sweep, options.fresh)
