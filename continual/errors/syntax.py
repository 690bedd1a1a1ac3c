"""The only place that parses Python."""

import ast
import threading

ALONE = threading.RLock()
"""Held while this process parses, and by threads that import what parses at its import, as torch does: in Python 3.11
threads that parse at one time may fail with SystemError (python/cpython#106905), which an import does not survive."""


def parse(source: str | bytes) -> ast.Module:
    """Return the syntax tree of a module. Raises SyntaxError, ValueError and RecursionError as `ast.parse` does."""
    with ALONE:
        return ast.parse(source)
