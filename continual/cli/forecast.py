"""The command `forecast`: what a task would make a model forget, from a few measured documents."""

import argparse
from collections.abc import Sequence as Arguments
from pathlib import Path

from continual.cli.parsing import new_parser
from continual.errors import redacted
from continual.errors.process import exit_code_of

EPILOG = """The task is learned from the start model, and only the probes are scored before and after it. What this run
keeps is used again; the forecast is written into its folder, and shown by its report and in the tracker.

exit codes:
  0    done
  1    the run failed
  2    bad configuration or usage
  130  interrupted"""


def parser(prog: str = "python -m continual.forecast") -> argparse.ArgumentParser:
    command = new_parser(prog, "Forecast which documents a task makes a model forget.", EPILOG)
    matrix = "associations.parquet that `continual.associate` has written"
    command.add_argument("--matrix", required=True, metavar="FILE", help=matrix)
    command.add_argument("--task", required=True, metavar="YAML", help="a sequence with the task as its only stage")
    command.add_argument("--probes", type=int, default=30, metavar="K", help="documents to measure (default: 30)")
    command.add_argument("--seed", type=int, default=0, help="decides which documents these are")
    models = "how the rest is forecast; default: what was best on the matrix's own tasks"
    command.add_argument("--model", metavar="NAME", help=models)
    command.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a value of the sequence's YAML")
    return command


def main(arguments: Arguments[str] | None = None, prog: str = "python -m continual.forecast") -> int:
    """Run the command line; return the exit code."""
    options = parser(prog).parse_intermixed_args(arguments)
    return exit_code_of(lambda: _forecast(options))


def _forecast(options: argparse.Namespace) -> None:
    from continual.associations.matrix import read
    from continual.associations.measure import load_task, measured
    from continual.associations.predicted import chosen_error, write_forecast
    from continual.associations.recorded import record
    from continual.forgetting.completion.complete import probes
    from continual.preflight.check import check
    from continual.run.execute import execute

    matrix = read(Path(options.matrix))
    columns = probes(options.probes, len(matrix.documents), options.seed)
    loaded = load_task(options.task, options.overrides, matrix, columns)
    notes = check(loaded)
    error = chosen_error(matrix, options.model, options.probes)
    execute(loaded, notes, fresh=False)
    change = measured(loaded, matrix, columns)
    text = write_forecast(loaded.run_folder, matrix, columns, change, error)
    print(redacted("\n".join([text, *record(loaded)])))
