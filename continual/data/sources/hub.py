"""Hugging Face data sets: from the hub, or from a local folder, which is read without any request."""

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, Self

from pydantic import Field

from continual.config.hub import Prepared, prepared_commit, ready_folder, resolved_revision
from continual.config.paths import looks_like_path, missing_folder, offline
from continual.contract.reading import Beginning
from continual.contract.source import Document
from continual.data.sources.bytes import COMPRESSED, opened
from continual.data.sources.csv_text import csv_documents, delimiter_of
from continual.data.sources.files import ColumnSource, count_documents, files_below
from continual.data.sources.json_text import json_documents
from continual.data.sources.parquet import count_rows, needed, parquet_documents, without_absent
from continual.errors import ConfigurationError, nearest, one_line
from continual.errors.bounded import check_size
from continual.errors.budget import LINE, is_limited, spend
from continual.errors.json_text import load_json

ROWS = 50_000
"""Rows of a loaded data set that one task reads."""
BATCH, LOOK = 1000, 32
"""Rows that are read at a time, and before a run."""
SAVED = ("dataset_dict.json", "state.json")
"""Files of a folder that was written by `save_to_disk`."""
READABLE = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Files of a folder that are read here; those of other kinds are read by `datasets`."""


class HubSource(ColumnSource):
    """A Hugging Face data set: a hub id, a folder written by `save_to_disk`, or a folder of files."""

    path_options: ClassVar[dict[str, bool]] = {"path": True}
    documents_key: ClassVar[str] = "path"

    type: Literal["hub"] = "hub"
    path: str = Field(description="hub id or local folder")
    split: str = Field("train", description="the split")
    subset: str | None = Field(None, description="the configuration name")
    revision: str | None = Field(
        None,
        exclude_if=lambda given: given is None,
        description="commit, tag or branch of a hub id; null: `main` as it is when the run begins",
    )

    @property
    def title(self) -> str:
        return self.path

    @property
    def folder(self) -> Path | None:
        """The local folder, None for a hub id."""
        return Path(self.path) if Path(self.path).exists() else None

    def files(self) -> list[Path]:
        check_size(self.path, "path")
        return sorted(path for path in self.folder.rglob("*") if path.is_file()) if self.folder else []

    def first(self, key: str, count: int) -> Beginning:
        try:
            self._check_name()
            here = self.folder is not None and (self._is_saved or (self._is_plain and bool(self._readable())))
        except ConfigurationError as error:
            raise error.within(key) from error
        return super().first(key, count) if here else Beginning([], [], self.selection(), whole=False)

    def parts(self) -> list[str]:
        self._check_name()
        if self.folder is not None and not self._is_saved and self._is_plain and (files := self._readable()):
            return files
        rows = len(self._loaded())
        return [f"{start}" for start in range(0, rows, ROWS)]

    def read(self, part: str) -> Iterator[tuple[str, Document | ConfigurationError]]:
        if not part.isdecimal():
            file = Path(part)
            return ((f"{file.name} {place}", document) for place, document in self._documents(file))
        return self._rows(int(part))

    def count(self) -> int | None:
        if self._is_saved:
            return len(self._loaded())
        files = [Path(file) for file in self._readable()] if self.folder is not None and self._is_plain else []
        tables = [file for file in files if _suffix(file) == ".parquet"]
        others = [file for file in files if file not in tables]
        return sum(map(count_rows, tables)) + count_documents(others, self._parse) if files else None

    def identity(self) -> dict[str, Any]:
        from continual.store.files import hash_files

        content: Any = [self.path, self._subset_read, self.commit]
        if self.folder is not None:
            # What tools leave in hidden folders beside the data (`.git`, `.cache`) decides nothing.
            content = hash_files(self.folder, sorted(files_below(self.folder)))
        return {**self.model_dump(exclude={"path", "subset", "revision"}), "content": content}

    @property
    def commit(self) -> str | None:
        """The commit of a hub id that is read; None if neither the hub nor the cache names one."""
        return None if self.folder is not None else resolved_revision(self.path, self.revision, self.subset)

    def pinned(self) -> Self:
        return self.model_copy(update={"revision": self.commit}) if self.folder is None else self

    def notes(self) -> list[str]:
        notes = super().notes()
        if self.folder is None and not looks_like_path(self.path) and self.commit is None:
            notes.append(f"the commit of `{self.path}` is not known: rows are reused even if the data set has changed")
        return notes

    def watched(self) -> list[Path]:
        return sorted(files_below(self.folder)) if self.folder is not None else []

    @property
    def _is_saved(self) -> bool:
        """Whether the folder was written by `save_to_disk`."""
        return self.folder is not None and any((self.folder / name).is_file() for name in SAVED)

    @property
    def _is_plain(self) -> bool:
        """Whether the split is a name, and not a slice or a sum of splits."""
        return re.fullmatch(r"[\w.-]+", self.split) is not None

    def _check_name(self) -> None:
        if self.folder is None and looks_like_path(self.path):
            raise ConfigurationError("path", *missing_folder(self.path))
        if self.folder is None and offline() and self.commit is None:
            problem = f"`{self.path}` is not a local folder, and HF_HUB_OFFLINE forbids to fetch it"
            raise ConfigurationError("path", problem, "give a local folder or unset HF_HUB_OFFLINE")
        if self.folder is None and offline():
            self._prepared()
        if self.folder is not None and not any(self.folder.iterdir()):
            raise ConfigurationError("path", f"the folder {self.folder} is empty", "put the data set there")

    def _loaded(self) -> Any:
        """Return the data set as `datasets` loads it, in columns of Arrow."""
        import datasets

        if self.folder is None:
            return self._of_hub().with_format("arrow")
        if not self._is_saved:
            return datasets.load_dataset(self.path, self.subset, split=self.split).with_format("arrow")
        self._check_saved_split()
        try:
            loaded = datasets.load_from_disk(self.path)
        except Exception as error:  # of many libraries
            problem = f"{self.path} is damaged ({one_line(error)})"
            raise ConfigurationError("path", problem, "save the data set again") from error
        if isinstance(loaded, datasets.DatasetDict):
            loaded = loaded[self.split]
        return loaded.with_format("arrow")

    def _of_hub(self) -> Any:
        """Return the split of the very commit that is in the address.

        Where the hub does not answer, `datasets` would take the newest data that its cache has, whatever their commit.
        """
        import datasets
        from datasets.packaged_modules.cache.cache import Cache

        place = str(ready_folder())
        if not offline():
            builder = datasets.load_dataset_builder(self.path, self.subset, cache_dir=place, revision=self.commit)
            if not isinstance(builder, Cache):
                builder.download_and_prepare()
                return builder.as_dataset(split=self.split)
        ready = self._prepared()
        builder = Cache(
            cache_dir=place, dataset_name=self.path.rpartition("/")[2], repo_id=self.path, config_name=ready.subset,
            version=ready.version, hash=ready.commit,
        )  # fmt: skip
        if self._is_plain:
            self._check_split(list(builder.info.splits or {}))
        return builder.as_dataset(split=self.split)

    def _prepared(self) -> Prepared:
        return prepared_commit(self.path, self.commit, self.subset)

    @property
    def _subset_read(self) -> str | None:
        """The subset in the address: without the hub, what is ready may be another one than the default."""
        if self.subset is not None or not offline():
            return self.subset
        try:
            only = self._prepared().subset
        except ConfigurationError:
            return None
        return None if only == "default" else only

    def _check_saved_split(self) -> None:
        splits = Path(self.path) / "dataset_dict.json"
        if not splits.is_file():
            return
        try:
            known = list(load_json(splits)["splits"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{splits} is damaged ({one_line(error)})"
            raise ConfigurationError("path", problem, "save the data set again") from error
        self._check_split(known)

    def _check_split(self, known: list[str]) -> None:
        if self.split not in known:
            near = nearest(self.split, known)
            fix = f"did you mean `{near}`?" if near else f"it has {', '.join(known)}"
            raise ConfigurationError("split", f"{self.path} has no split `{self.split}`", fix)

    def _rows(self, start: int) -> Iterator[tuple[str, Document]]:
        loaded = self._loaded()
        names = needed(self.columns(), loaded.column_names)
        loaded = loaded.select_columns(names) if names is not None else loaded
        loaded = loaded.select(range(start, min(start + ROWS, len(loaded))))
        number = start
        for table in loaded.iter(batch_size=LOOK if is_limited() else BATCH):
            spend(table.nbytes + LINE * table.num_rows)
            for number, row in enumerate(table.to_pylist(maps_as_pydicts="strict"), number + 1):  # noqa: B020  numbers go on
                yield f"row {number}", {name: without_absent(value) for name, value in row.items()}

    def _readable(self) -> list[str]:
        """Return the files of the split if they can be read here, else []. `datasets` decides which they are."""
        import datasets

        check_size(self.path, "path")  # `datasets` looks at all that is there
        # It warns of every README.md that has no header for the hub.
        logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as cache:
            try:
                builder = datasets.load_dataset_builder(self.path, self.subset, cache_dir=cache)
            except Exception as error:  # of many libraries
                problem = f"{self.path} is not a data set ({one_line(error)})"
                raise ConfigurationError("path", problem, "correct its files, or use another `type`") from error
        found = builder.config.data_files or {}
        splits = {str(split): [str(file) for file in files] for split, files in found.items()}
        self._check_split(list(splits))
        files = splits[self.split]
        return files if all(_suffix(Path(file)) in READABLE for file in files) else []

    def _documents(self, file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        if _suffix(file) == ".parquet":
            yield from parquet_documents(file, self.columns())
            return
        with opened(file) as (data, _):
            yield from self._parse(data, file)

    @staticmethod
    def _parse(data: IO[bytes], file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        tables = _suffix(file) in (".csv", ".tsv")
        return csv_documents(data, delimiter_of(file.name)) if tables else json_documents(data)


def _suffix(file: Path) -> str:
    name = file.name.lower()
    for compressed in COMPRESSED:
        name = name.removesuffix(compressed)
    return Path(name).suffix
