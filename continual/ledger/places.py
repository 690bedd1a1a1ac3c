"""Paths in a run's files: relative to the storage where they lie in it, so that a storage can be moved or copied."""

from pathlib import Path


def stored(path: str | Path, storage: Path) -> str:
    """Return how a path is written: relative to the storage if it lies in it, else as it is."""
    path = Path(path)
    return path.relative_to(storage).as_posix() if path.is_relative_to(storage) else str(path)


def placed(text: str, storage: Path) -> str:
    """Return the absolute path of what `stored` has written, where the storage lies now.

    Earlier versions wrote absolute paths. One that is missing is looked for in the storage by the end of its path.
    """
    path = Path(text)
    if not path.is_absolute():
        return str(storage / path)
    if not path.exists():
        for first in range(1, len(path.parts)):
            if (moved := storage.joinpath(*path.parts[first:])).exists():
                return str(moved)
    return text
