"""`continual run | tune | associate | forecast | report | list`: every command line under one name."""

import argparse
import importlib
import sys
from collections.abc import Sequence as Arguments
from typing import NoReturn

from continual.cli.parsing import new_parser
from continual.errors.process import leave

COMMANDS = {  # each is a module of this package, imported only when it is called
    "run": "run a sequence, or resume it",
    "tune": "run a sequence under many settings and seeds, and compare",
    "associate": "measure which task makes the model forget which documents",
    "forecast": "forecast that for a task from a few measured documents",
    "report": "write an HTML page about runs",
    "list": "print the registered mitigations with their options",
}


def parser() -> argparse.ArgumentParser:
    description = "Fine-tune a language model on task after task, and measure and prevent forgetting."
    epilog = "\n".join(["commands:", *(f"  {name:<9} {text}" for name, text in COMMANDS.items())])
    command = new_parser("continual", description, epilog)
    command.add_argument("command", choices=COMMANDS, help="`continual COMMAND --help` describes its arguments")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own arguments")
    return command


def dispatch(arguments: Arguments[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = parser().parse_args(arguments)
    module = importlib.import_module(f"continual.cli.{options.command}")
    return int(module.main(options.arguments, prog=f"continual {options.command}"))


def main() -> NoReturn:
    """Run the command line and end the process."""
    leave(dispatch(sys.argv[1:]))
