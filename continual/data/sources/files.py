"""What the sources of local files have in common: which files are read, and which splits they have."""

import glob
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

from pydantic import Field, model_validator

from continual.config.paths import CORRECT_PATH, is_uri
from continual.contract.selection import Selection
from continual.contract.source import Document, Source
from continual.data.sources.bytes import COMPRESSED, opened
from continual.errors import ConfigurationError, nearest
from continual.errors.bounded import check_size, matches
from continual.errors.budget import Enough, limited

BESIDE_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "croissant.json"}
"""Files that tools leave beside data, and that look like data."""
ABOUT_DATA = re.compile(r"(readme|licen[cs]e|notice|changelog|citation|contributing|copying)\b", re.IGNORECASE)
SPLITS = (
    {"train", "training"},
    {"test", "testing"},
    {"validation", "valid", "val", "dev", "eval", "evaluation"},
)
"""Words in the names of files and folders that say of which split they are; those of a set mean the same."""
MOST_NAMED = 3
COUNT_BYTES = 16 << 20
"""How much is read to count documents."""


class ColumnSource(Source):
    """Base of the sources whose options must name the columns of a document."""

    @model_validator(mode="after")
    def _names_columns(self) -> "ColumnSource":
        if not (self.text or self.prompt or self.messages):
            raise ValueError("name the column(s): `text`, `prompt` and `completion`, or `messages`")
        return self


class FileSource(Source):
    """Base of the sources that read local files one by one."""

    path_options: ClassVar[dict[str, bool]] = {"path": False}
    documents_key: ClassVar[str] = "path"
    suffixes: ClassVar[tuple[str, ...]] = ()
    """How names of such files end, in small letters, compression aside; of a folder no other files are read."""

    path: str = Field(description="file, folder or glob; of the last two the files of this type")
    split: str | None = Field(
        None, description="use only this split: by the names of files and folders, or by the column `split`"
    )

    @property
    def title(self) -> str:
        return self.path

    def files(self) -> list[Path]:
        files = [file for file in self._candidates() if self._has_type(file)]
        return self._of_split(files) or files

    def parts(self) -> list[str]:
        return [str(file) for file in self._checked_files()]

    def read(self, part: str) -> Iterator[tuple[str, Document | ConfigurationError]]:
        file = Path(part)
        return ((f"{file.name} {place}".rstrip(), document) for place, document in self.documents(file))

    @abstractmethod
    def documents(self, file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        """Yield the documents of a file, each with its place in it (see `Source.read`)."""

    def identity(self) -> dict[str, Any]:
        from continual.store import hash_file

        return {**self.model_dump(exclude={"path"}), "content": [hash_file(path) for path in self.files()]}

    def watched(self) -> list[Path]:
        return self.files()

    def selection(self) -> Selection:
        selection = super().selection()
        if self.split is not None and "split" not in selection.wanted:
            selection.wanted["split"] = [self.split]
            selection.options["split"] = "split"
            if self._of_split(self.files()):
                selection.optional = frozenset(["split"])
        return selection

    def notes(self) -> list[str]:
        every = self._candidates()
        files = [file for file in every if self._has_type(file)]
        left_out = [file for file in every if not self._has_type(file)]
        notes = []
        if left_out:
            named = ", ".join(file.name for file in left_out[:MOST_NAMED])
            more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
            notes.append(f"`{self.path}`: files that are not of `type: {self.type}` are left out: {named}{more}")
        splits = sorted({split for file in files if (split := self.split_of(file))})
        if self.split is None and len(splits) > 1:
            of = f"files of the splits {', '.join(splits)}"
            notes.append(f"`{self.path}` has {of}, and all are used; `split: {splits[-1]}` would choose")
        return notes

    def split_of(self, file: Path) -> str | None:
        """Return the word in the name of a file, or of a folder that holds it, that says its split; None without.

        A folder that is called as a split is, decides for all that is below it, whatever their names say.
        """
        below = self._below_root(file)
        folders = [part.lower().removeprefix("split=") for part in reversed(below.parts[:-1])]
        called = next((folder for folder in folders if any(folder in names for names in SPLITS)), None)
        if called is not None:
            return called
        words = [word for part in reversed(below.parts) for word in re.split(r"[^a-z]+", part.lower())]
        return next((word for word in words if any(word in names for names in SPLITS)), None)

    @property
    def _root(self) -> Path:
        """The folder below which names may say a split."""
        path = Path(self.path)
        if path.is_dir():
            return path
        if path.is_file():
            return path.parent.parent
        fixed = [part for part in path.parts if not glob.has_magic(part)]
        return Path(*path.parts[: next((n for n, part in enumerate(path.parts) if glob.has_magic(part)), len(fixed))])

    def _below_root(self, file: Path) -> Path:
        return file.relative_to(self._root) if file.is_relative_to(self._root) else Path(file.name)

    def _of_split(self, files: list[Path]) -> list[Path]:
        """Return the files of the split that is asked for: of its very name, or else of a name that means the same."""
        if self.split is None:
            return []
        wanted = self.split.lower()
        same = next((names for names in SPLITS if wanted in names), None)
        if same is None:
            shard = re.compile(rf"{re.escape(wanted)}([-_.]\d+([-_]of[-_]\d+)?)?(\..*)?")
            return [
                file
                for file in files
                for below in [self._below_root(file)]
                if shard.fullmatch(below.name.lower())
                or any(part.lower().removeprefix("split=") == wanted for part in below.parts[:-1])
            ]
        words = {file: self.split_of(file) for file in files}
        exact = [file for file, word in words.items() if word == wanted]
        return exact or [file for file, word in words.items() if word in same]

    def _candidates(self) -> list[Path]:
        """Return all files that the path names, of any type; of a folder those that are not hidden."""
        path = Path(self.path)
        if path.is_dir():
            return sorted(files_below(path))
        if path.is_file():
            return [path]
        return sorted(file for name in matches(self.path, "path") if (file := Path(name)).is_file())

    def _has_type(self, file: Path) -> bool:
        """Return whether a file is data of this type: by its name, if it was not named by the user."""
        path = Path(self.path)
        named = path.is_file() or (not path.is_dir() and bool(path.suffix) and not glob.has_magic(path.suffix))
        if named:
            return True
        name = file.name.lower()
        if file.name.lower() in BESIDE_DATA or ABOUT_DATA.match(name):
            return False
        for compressed in COMPRESSED:
            name = name.removesuffix(compressed)
        return name.endswith(self.suffixes)

    def _checked_files(self) -> list[Path]:
        """Return the files. Raises ConfigurationError if there are none, or if one cannot be read or is empty."""
        if is_uri(self.path):
            fix = "object storage is not supported yet; use a path on a shared file system"
            raise ConfigurationError("path", f"`{self.path}` is not a local path", fix)
        files = self.files()
        if not files:
            raise self._no_files()
        for file in files:
            if not os.access(file, os.R_OK):
                raise ConfigurationError("path", f"{file} cannot be read", "change its permissions")
            if file.stat().st_size == 0:
                raise ConfigurationError("path", f"{file} is empty", "remove it or put data there")
        self._check_split(files)
        return files

    def _no_files(self) -> ConfigurationError:
        every = self._candidates()
        if every or Path(self.path).is_dir():
            there = f" (there is {', '.join(file.name for file in every[:MOST_NAMED])})" if every else ""
            kinds = " or ".join(self.suffixes)
            fix = f"put data there{', or correct `type`' if every else ''}"
            return ConfigurationError("path", f"{self.path} has no files that end in {kinds}{there}", fix)
        return ConfigurationError("path", f"there is no file {self.path}", CORRECT_PATH)

    def _check_split(self, files: list[Path]) -> None:
        """Check that a split that only the names of files can tell is there; a column tells while it is read."""
        if self.split is None or self._of_split(files):
            return
        first = next((doc for _, doc in self.documents(files[0]) if not isinstance(doc, ConfigurationError)), {})
        if "split" not in first:
            known = sorted({split for file in files if (split := self.split_of(file))})
            near = nearest(self.split, known)
            there = f"there is {', '.join(known)}" if known else "leave `split` out, or choose rows by `where`"
            problem = f"neither a column `split` nor the name of a file or folder has the split `{self.split}`"
            raise ConfigurationError("split", problem, f"did you mean `{near}`?" if near else there)


class StreamSource(FileSource):
    """Base of the sources whose files are read from their beginning to their end, compressed or not."""

    def documents(self, file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        with opened(file) as (data, _):
            yield from self.parse(data, file)

    @abstractmethod
    def parse(self, data: IO[bytes], file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        """Yield the documents of an open file, each with its place in it (see `Source.read`)."""

    def count(self) -> int | None:
        return count_documents(self.files(), self.parse)


def count_documents(files: list[Path], parse: Callable[[IO[bytes], Path], Iterator[Any]]) -> int:
    """Return the documents of files: counted in the first ones, as far as a limit allows, and scaled by their size."""
    count = size = 0
    with limited(COUNT_BYTES):
        for file in files:
            with opened(file) as (data, raw):
                try:
                    for _ in parse(data, file):
                        count += 1
                except Enough:
                    size += raw.tell()
                    return round(count * sum(each.stat().st_size for each in files) / max(1, size))
            size += file.stat().st_size
    return count


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden, in no order.

    Links to folders are followed, after the folders that are there themselves; of no folder files are found twice.
    Raises ConfigurationError for a folder with so much below it that it cannot be meant, such as `/`.
    """
    check_size(folder, "path")
    seen: set[Path] = set()
    tops = [folder]
    while tops:
        links: list[Path] = []
        for top in tops:
            for at, names, files in os.walk(top):
                here = Path(at)
                if here.resolve() in seen:
                    names.clear()
                    continue
                seen.add(here.resolve())
                names[:] = [name for name in names if not _hidden(name)]
                links += [here / name for name in names if (here / name).is_symlink()]
                # `Path.is_file` raises for a link that may not be followed.
                yield from (here / name for name in files if not _hidden(name) and os.path.isfile(at + "/" + name))  # noqa: PTH113
        tops = sorted(links)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
