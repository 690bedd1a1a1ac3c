"""The texts in code that may name what it reads: a module, a file beside it or in the folder of the run."""

import ast
import os
import re
from functools import lru_cache
from pathlib import Path

from continual.errors.syntax import parse
from continual.store.files import hash_file

MOST_TEXTS = 10_000
"""Texts of a module that are looked at."""
MOST_LETTERS = 1024
MOST_BYTES = 1 << 30
"""A larger file counts by its size: nobody asked for it to be read."""
VIRTUAL = ("/proc/", "/sys/", "/dev/")


def literals(file: Path) -> list[str]:
    """Return the texts in a module that may name something, each once, at most `MOST_TEXTS`.

    Texts that stand alone, as docstrings do, are left out.
    """
    if file.suffix != ".py":
        return []
    try:
        return _literals(file.read_bytes())[:MOST_TEXTS]
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


@lru_cache(maxsize=1024)
def _literals(code: bytes) -> list[str]:
    tree = parse(code)
    nodes = list(ast.walk(tree))
    alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in alone | parts]
    named = dict.fromkeys(text for text in texts if isinstance(text, str) and _may_name(text))
    return list(named)


def _may_name(text: str) -> bool:
    return len(text) <= MOST_LETTERS and text.isprintable() and re.search(r"\w", text) is not None


def named_file(text: str, beside: Path, folder: bool = False) -> Path | None:
    """Return the file (or folder) that a text names from the folder of the run or from `beside`, None without one."""
    for place in (Path(), beside):
        path = os.path.expanduser(place / text)  # noqa: PTH111  `Path.expanduser` raises RuntimeError
        if path.startswith(VIRTUAL):
            return None
        if os.path.isdir(path) if folder else os.path.isfile(path):  # noqa: PTH112, PTH113  these raise nothing
            return Path(path)
    return None


def named_content(file: Path) -> str:
    """Return what a named file is known by: its hash, or the size of one that is too large or cannot be read."""
    size = file.stat().st_size
    return hash_file(file) if size <= MOST_BYTES and os.access(file, os.R_OK) else f"{size} bytes"
