"""What the parsers of the command lines have in common."""

import argparse

from continual import __version__


def new_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser that prints `epilog` as it is written and knows `--version`."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog, formatter_class=layout)
    parser.add_argument("--version", action="version", version=__version__)
    return parser
