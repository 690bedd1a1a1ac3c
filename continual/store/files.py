"""Hashes and atomic writes."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHORT = 20
"""Hex digits of an address; 80 bits leave no room for chance collisions."""


def digest(value: Any) -> str:
    """Address of a JSON-able value: equal values, whatever the order of their keys, have equal addresses."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


def hash_file(path: str | Path) -> str:
    """sha256 of a file's content, in full."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
