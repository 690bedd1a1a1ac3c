"""What the parsers of the command lines have in common."""

import argparse
import sys

from continual import __version__
from continual.contract.announce import listen
from continual.errors import redacted


def new_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser that prints `epilog` as it is written and knows `--version`."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog, formatter_class=layout)
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def say_first() -> None:
    """Print, on stderr and at once, which of the user's code a plan imports and calls, before it does."""
    listen(lambda doing: print(redacted(f"plan: {doing}"), file=sys.stderr, flush=True))
