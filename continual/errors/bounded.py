"""Looks into folders that end: one through all of a file system is refused, not waited for."""

import glob
import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from continual.errors.types import ConfigurationError

MOST_ENTRIES = 100_000
"""How many files and folders may lie below a folder; so many are counted in half a second."""
MOST_LOOKED_AT = 50_000
"""How many a pattern may look at; links are followed, also round and round."""


def check_size(folder: str | Path, key: str, most: int = MOST_ENTRIES) -> None:
    """Raise ConfigurationError, about `key`, if more than `most` files and folders lie below a folder."""
    _count((len(folders) + len(files) for _, folders, files in os.walk(folder)), folder, key, most)


def matches(pattern: str, key: str) -> list[str]:
    """Return what matches a pattern with `*` and `**`, in no order.

    Raises ConfigurationError, about `key`, if that would look at more than MOST_LOOKED_AT files and folders.
    """
    parts = Path(pattern).parts
    magic = [number for number, part in enumerate(parts) if glob.has_magic(part)]
    if magic:
        root, left = Path(*parts[: magic[0]]), parts[magic[0] :]
        _count(_looked_at(root, left), root, key, MOST_LOOKED_AT)
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  an absolute pattern, too


def _looked_at(root: Path, left: tuple[str, ...]) -> Iterable[int]:
    """Yield how much each folder holds that `glob` may look into for the parts of a pattern."""
    hidden = any(part.startswith(".") for part in left)
    for at, folders, files in os.walk(root, followlinks=True):
        yield len(folders) + len(files)
        depth = len(Path(at).parts) - len(root.parts)
        if "**" not in left[: depth + 1]:
            last = depth >= len(left) - 1
            folders[:] = [] if last else [name for name in folders if fnmatch(name, left[depth])]
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]


def _count(folders: Iterable[int], root: str | Path, key: str, most: int) -> None:
    count = 0
    for entries in folders:
        count += entries
        if count > most:
            problem = f"{root} holds more than {most:,} files and folders"
            raise ConfigurationError(key, problem, "name a folder that holds less")
