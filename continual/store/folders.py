"""Folders that appear whole or not at all, with a manifest against which they are verified."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from continual.store.files import hash_file, write_atomic
from continual.store.json_files import has, known_json
from continual.store.places import is_inner, remove

MANIFEST = "manifest.json"


def empty_folder(path: Path) -> Path:
    """Create the folder, without what an earlier attempt left there."""
    remove(path)
    path.mkdir(parents=True)
    return path


def publish_folder(temporary: Path, final: Path, facts: Mapping[str, Any]) -> None:
    """Give a filled temporary folder its manifest and its name. Called by one process after all have written."""
    files = {
        str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(temporary.rglob("*"))
        if path.is_file()
    }
    write_atomic(temporary / MANIFEST, json.dumps({"files": files, **facts}))
    remove(final)
    temporary.replace(final)


def folder_damage(folder: Path, share: int = 0, shares: int = 1) -> str | None:
    """Return what is wrong with a published folder, or None if every file is as the manifest says.

    Of `shares` processes that read it together, each hashes its `share` of the files, counted from 0.
    """
    if not (files := listed_files(folder)):
        return f"{MANIFEST} is missing or damaged"
    try:
        for name in sorted(files)[share::shares]:
            facts = files[name]
            path = folder / name
            if not path.is_file() or path.stat().st_size != facts["bytes"] or hash_file(path) != facts["sha256"]:
                return f"{name} is missing or damaged"
    except OSError as error:
        return f"it cannot be read ({type(error).__name__})"
    return None


def listed_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and hash of a published folder's files by what its manifest says; {} if it is missing or damaged."""
    files = known_json(folder / MANIFEST, has(files=dict)).get("files", {})
    return files if all(map(has(bytes=int, sha256=str), files.values())) and all(map(is_inner, files)) else {}
