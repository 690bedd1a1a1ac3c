"""Names and paths that were read from a storage: none leads out of it, whoever wrote them there."""

import os
import shutil
from pathlib import Path
from typing import Any

LONGEST_PART, LONGEST = 255, 4096
"""Bytes of a file's name and of a path that file systems take."""


def is_path(value: Any) -> bool:
    """Return whether a value of JSON can be a path, of any place, that does not climb with `..`."""
    if not isinstance(value, str) or "\0" in value or ".." in value.split("/") or Path(value) in (Path(), Path("/")):
        return False
    try:
        parts = [os.fsencode(part) for part in value.split("/")]
    except UnicodeEncodeError:
        return False
    return max(map(len, parts)) <= LONGEST_PART and sum(map(len, parts)) + len(parts) <= LONGEST


def is_inner(value: Any) -> bool:
    """Return whether a value of JSON is the path of something inside the folder that it is looked for in."""
    return is_path(value) and not value.startswith("/")


def is_name(value: Any) -> bool:
    """Return whether a value of JSON is the name of one file or folder."""
    return is_inner(value) and "/" not in value


def lies_in(path: Path, *folders: Path) -> bool:
    """Return whether a path lies in one of the folders, and is none of them, with all links followed."""
    try:
        return any(folder.resolve() in path.resolve().parents for folder in folders)
    except (OSError, RuntimeError):  # links in a circle
        return False


def remove(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link, never what the link names; nothing if it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_inner(folder: Path, name: str) -> None:
    """Delete what a name means inside a folder; a link on the way to it is deleted in its place, and not followed."""
    path = folder
    for part in Path(name).parts:
        path /= part
        if path.is_symlink():
            break
    remove(path)
