"""The command `associate`: which task makes the model forget which documents."""

import argparse
from collections.abc import Sequence as Arguments

from continual.cli.parsing import new_parser, say_first
from continual.errors import redacted
from continual.errors.process import exit_code_of

EPILOG = """Every stage of the sequence is learned alone, from the same model. The matrix, its analysis and how well a
task's forgetting is forecast are written to <storage>/<name>. The same command again resumes.

exit codes:
  0    done
  1    a task failed
  2    bad configuration or usage
  130  interrupted"""


def parser(prog: str = "python -m continual.associate") -> argparse.ArgumentParser:
    command = new_parser(prog, "Measure how much each task makes a model forget each of many documents.", EPILOG)
    command.add_argument("associations", help="the YAML of the associations")
    overrides = "keys of this YAML (concurrency=2) or of the sequence"
    command.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
    command.add_argument("--plan", action="store_true", help="print what would run and what is shared; start nothing")
    command.add_argument(
        "--fresh", action="store_true", help="forget the earlier runs of these tasks (the store stays)"
    )
    return command


def main(arguments: Arguments[str] | None = None, prog: str = "python -m continual.associate") -> int:
    """Run the command line; return the exit code."""
    options = parser(prog).parse_intermixed_args(arguments)
    return exit_code_of(lambda: _associate(options))


def _associate(options: argparse.Namespace) -> None:
    if options.plan:
        say_first()
    from continual.associations.results import results_of
    from continual.associations.spec import load_associate, prepare_sweep
    from continual.sweep.execute import run_sweep
    from continual.sweep.sweep import plan_text

    loaded = load_associate(options.associations, options.overrides)
    sweep = prepare_sweep(loaded, options.fresh)
    if options.plan:
        print(redacted(plan_text(sweep)))
    else:
        run_sweep(sweep, options.fresh, results_of(loaded))
