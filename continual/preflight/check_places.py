"""Check that what a run keeps has its place: nothing of another kind stands there, and it can be written."""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from continual.config.load import Loaded
from continual.config.paths import is_uri
from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.ledger.folder import RunFolder, default_tracking_uri, sqlite_file
from continual.store import Store

LONGEST_PATH = 3000
"""Bytes of the storage's path: file systems take 4,096, and a run has folders and files below it."""


def check_places(loaded: Loaded, fresh: bool = False) -> None:
    """Raise ConfigurationError unless the run, its store and a tracker in a file can be written. Leave no file behind.

    Of a run that is to begin again (`fresh`), only what is not deleted before it counts.
    """
    sequence = loaded.sequence
    check_storage(sequence.storage)
    files = RunFolder(loaded.run_folder)
    entries = files.entries([stage.name for stage in sequence.stages])
    kept = {files.storage, files.path, files.lock}
    check_kinds("name", ((path, folder) for path, folder in entries if not fresh or path in kept))
    store = files.storage / "store"
    check_kinds("storage", [(store, True), *Store(store).entries()])
    if sequence.track.enabled:
        _check_tracker(sequence)


def check_kinds(key: str, entries: Iterable[tuple[Path, bool]]) -> None:
    """Raise ConfigurationError, about `key`, if one of the entries is there as something else, or may not be written.

    Args:
        key: The key in the YAML.
        entries: Paths, and whether each is to be a folder.
    """
    fixes = {"name": "remove it, or choose another `name`", "storage": "remove it, or choose another `storage`"}
    for path, folder in entries:
        fix = fixes.get(key, "remove it, or write another path")
        if not os.path.lexists(path):
            continue
        if not (path.is_dir() if folder else path.is_file()):
            what = "a folder" if path.is_dir() else "a file" if path.is_file() else "neither a file nor a folder"
            problem = f"{path} is {what}, where {'a folder' if folder else 'a file'} is kept"
            raise ConfigurationError(key, problem, fix)
        if not os.access(path, os.W_OK | os.X_OK if folder else os.W_OK):
            raise ConfigurationError(key, f"nothing may be written to {path}", "change its permissions")


def check_storage(storage: str) -> None:
    """Raise ConfigurationError unless the storage is a local path that can be written to. Leave no file behind."""
    if "\0" in storage:
        raise ConfigurationError("storage", "the path holds a NUL character", "write a path without it")
    if is_uri(storage):
        fix = "object storage is not supported yet; use a path on a shared file system"
        raise ConfigurationError("storage", f"`{storage}` is not a local path", fix)
    folder = Path(storage)
    if len(os.fsencode(storage)) > LONGEST_PATH or any(len(os.fsencode(part)) > 255 for part in folder.parts):
        problem = f"the path has {len(storage):,} characters"
        raise ConfigurationError("storage", problem, f"write at most {LONGEST_PATH:,}, and 255 per folder")
    _check_writable("storage", folder)


def _check_writable(key: str, folder: Path) -> None:
    """Raise ConfigurationError unless a folder, or where it is to be made, can be written to."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigurationError(key, f"{folder} is a file, not a folder", "give a folder")
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = f"nothing can be written to {folder} ({error.strerror})"
        raise ConfigurationError(key, problem, "give a folder that you may write to") from error


def _check_tracker(sequence: Sequence) -> None:
    """Raise ConfigurationError if the tracker's SQLite file cannot be created or written."""
    uri = sequence.track.uri or default_tracking_uri(Path(sequence.storage))
    key = "track.uri" if sequence.track.uri else "storage"
    database = sqlite_file(re.sub(r"^sqlite\+\w+:", "sqlite:", uri))
    if database is None:
        return
    if "\0" in str(database):
        raise ConfigurationError(key, "the path holds a NUL character", "write a path without it")
    check_kinds(key, [(database, False), (Path(f"{database}.lock"), False)])
    _check_writable(key, database.parent)
