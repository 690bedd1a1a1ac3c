"""Hashes and atomic writes."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHORT = 20
"""Hex digits of an address; 80 bits leave no room for chance collisions."""
FICLONE = 0x40049409
"""Linux's request to share the blocks of a file with a copy until one of them changes (btrfs, XFS, bcachefs)."""
COPIED_BYTES = 256 << 20
"""Files up to this size are copied where the file system cannot share blocks."""

NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that say that a path is none of a file."""
VERIFIED: set[tuple[Any, ...]] = set()
"""The files whose content this process has compared with what was stored: path, hash, and what changes with a write."""


def digest(value: Any) -> str:
    """Address of a JSON-able value: equal values, whatever the order of their keys, have equal addresses."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


def hash_file(path: str | Path) -> str:
    """sha256 of a file's content, in full."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path, sha: str) -> bool:
    """Return whether a file has the content that was stored. A process reads it once, unless it is written again."""
    try:
        known = path.stat()
    except OSError as error:
        if error.errno in NO_FILE:
            return False
        raise
    key = (str(path), sha, known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino)
    if key not in VERIFIED:
        if not path.is_file() or hash_file(path) != sha:
            return False
        VERIFIED.add(key)
    return True


def hash_files(folder: str | Path, files: Iterable[Path]) -> str:
    """Return the address of some of a folder's files by name and content."""
    return digest([[str(path.relative_to(folder)), hash_file(path)] for path in files])


def hash_folder(folder: str | Path, suffixes: tuple[str, ...] = ("",)) -> str:
    """Return the address of the folder's files with one of the `suffixes`, without hidden ones."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name.endswith(suffixes))
    return hash_files(folder, sorted(path for path in files if not path.name.startswith(".")))


def temporary_name(path: Path) -> Path:
    """Return a hidden name next to `path` that no other writer uses; processes of two containers have equal ids."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def second_copy(file: str | Path, copy: str | Path) -> None:
    """Make a second copy of a file that two owners keep, such as a run and the store, as cheaply as is safe.

    Where the file system shares blocks, and for small files, the copies are apart: a change in one leaves the other as
    it is. A large file becomes a hard link, since weights would take up twice their size: its mode is read-only then,
    and for the users that no mode stops, hashes tell whoever reads the other copy (`Artefact.damage`).
    """
    file, copy = Path(file), Path(copy)
    try:
        with file.open("rb") as source, copy.open("wb") as target:
            fcntl.ioctl(target, FICLONE, source.fileno())
        return
    except OSError:
        copy.unlink(missing_ok=True)
    try:
        if file.stat().st_size > COPIED_BYTES:
            os.link(file, copy)
            copy.chmod(0o444)
            return
    except OSError:
        copy.unlink(missing_ok=True)
    shutil.copyfile(file, copy)
