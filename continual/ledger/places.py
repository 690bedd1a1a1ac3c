"""Paths in a run's files: relative to the storage where they lie in it, so that a storage can be moved or copied."""

import re
from os.path import abspath
from pathlib import Path

ENDS = re.compile(r".*/(store/[^/]+/[0-9a-f]{20}(?:/.*)?|[^/]+/stages/\d+-.+)")
"""How the absolute paths end that earlier versions wrote: in the store, or in a run's stage."""
STAGE = re.compile(r"(?:.*/)?[^/]+/(stages/\d+-.+)")


def stored(path: str | Path, storage: Path) -> str:
    """Return how a path is written: relative to the storage if it lies in it, else absolute.

    The storage, or the store in it, may be a link: the path may be written with or without following it.
    """
    for root, name in ((storage, ""), (storage / "store", "store")):
        for base in (Path(abspath(root)), root.resolve()):  # noqa: PTH100  keeps links
            if (full := Path(abspath(path))).is_relative_to(base):  # noqa: PTH100
                return Path(name, full.relative_to(base)).as_posix()
    return abspath(path)  # noqa: PTH100


def placed(text: str, storage: Path) -> str:
    """Return the absolute path of what `stored` has written, where the storage lies now.

    Earlier versions wrote absolute paths. What lies at their end in this storage is meant, also where the storage was
    copied and the old one is still there.
    """
    if not Path(text).is_absolute():
        return abspath(storage / text)  # noqa: PTH100
    if not Path(text).is_relative_to(abspath(storage)) and (end := ENDS.fullmatch(text)):  # noqa: PTH100
        moved = storage / end[1]
        if moved.exists():
            return abspath(moved)  # noqa: PTH100
    return text


def placed_model(text: str, run: Path) -> str:
    """Return the absolute path of a model that a stage of the run in folder `run` left; see `placed`.

    What lies in a run's folder follows it, also if the folder itself was renamed or copied within the storage.
    """
    if end := STAGE.fullmatch(text):
        return abspath(run / end[1])  # noqa: PTH100
    return placed(text, run.parent)
