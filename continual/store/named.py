"""The files and folders that a text names, in the ways in which code is told what to read."""

import glob
import re
from collections.abc import Iterator
from os.path import expandvars
from pathlib import Path
from urllib.parse import unquote

from continual.errors.bounded import matches

MOST_LETTERS = 4096
PLACE = re.compile(r"\{[\w.]*(?:[!:][^{}/]*)?\}|%\d*[sd]")
"""What code fills in: `{split}`, `{number:02d}`, `%s`."""
DATABASE = re.compile(r"(?:sqlite|duckdb)(?:\+\w+)?:///")
"""How a URL begins that says in which file a database is; a path from the root begins with one more slash."""
CODE = (".py", ".pyc", ".pyi")
"""Files beside data that are known as modules, where they are imported."""


def named_paths(key: str, text: str, beside: Path | None = None) -> list[Path]:
    """Return the files and folders that a text names, each once.

    It may be a path, several with commas between them, a pattern, a template with `{split}` in it, a path without its
    ending, a `file://` URL, or that of a database in a file; from the folder of the run, or from the one `beside` the
    code that is given the text.

    Raises:
        ConfigurationError: A pattern holds much too much.
    """
    if not text.strip("/") or "\0" in text or "\n" in text or len(text) > MOST_LETTERS:
        return []
    found: dict[str, Path] = {}
    for folder in [None] if beside is None else [None, beside]:
        paths = list(_of_one(key, text, folder))
        if not paths and "," in text:
            parts = [part.strip() for part in text.split(",") if part.strip().strip("/")]
            paths = [path for part in parts for path in _of_one(key, part, folder)]
        for path in paths:
            found.setdefault(str(path.resolve()), path)
    return list(found.values())


def _of_one(key: str, text: str, folder: Path | None) -> Iterator[Path]:
    """Yield what one path, pattern or template names from `folder`, or from the folder of the run."""
    try:
        path = _path(text, folder)
        if path.exists():
            yield path
            return
        pattern = _pattern(text, path)
        if pattern is not None:
            yield from sorted(map(Path, matches(pattern, key)))
        elif not path.suffix:
            yield from _endings(path)
    except (OSError, RuntimeError, ValueError):
        return


def _path(text: str, folder: Path | None) -> Path:
    if text.startswith("file:"):
        text = unquote(text.removeprefix("file:").removeprefix("//").removeprefix("localhost"))
    elif database := DATABASE.match(text):
        text = unquote(text[database.end() :].partition("?")[0])
    path = Path(expandvars(text)).expanduser()
    return path if folder is None else folder / path


def _pattern(text: str, path: Path) -> str | None:
    """Return the pattern of the names that a template or pattern stands for, None for a plain path."""
    if not PLACE.search(text):
        return str(path) if glob.has_magic(text) else None
    if not re.search(r"\w", PLACE.sub("", text)):
        return None  # a template of texts: of `{prompt}`, everything would be a name
    return re.sub(r"\*{2,}", "*", PLACE.sub("*", str(path)))


def _endings(path: Path) -> Iterator[Path]:
    """Yield the files that have a path's name and an ending."""
    if path.parent.is_dir():
        for file in sorted(path.parent.glob(f"{glob.escape(path.name)}.*")):
            if file.is_file() and file.suffix not in CODE:
                yield file
