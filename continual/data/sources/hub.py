"""Hugging Face data sets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from continual.config.paths import CORRECT_PATH, looks_like_path, offline
from continual.contract.source import Document
from continual.data.sources.files import READ_CPUS, ColumnSource, as_json
from continual.errors import ConfigurationError, nearest, one_line

if TYPE_CHECKING:
    import ray.data


class HubSource(ColumnSource):
    """A Hugging Face data set: a hub id, a folder written by `save_to_disk`, or a folder of files."""

    path_options: ClassVar[dict[str, bool]] = {"path": True}

    type: Literal["hub"] = "hub"
    path: str = Field(description="hub id or local folder")
    split: str = Field("train", description="the split")
    subset: str | None = Field(None, description="the configuration name")

    @property
    def title(self) -> str:
        return self.path

    @property
    def folder(self) -> Path | None:
        """The local folder, None for a hub id."""
        return Path(self.path) if Path(self.path).exists() else None

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file()) if self.folder else []

    def first(self, key: str, count: int) -> list[Document]:
        if self.folder is None:
            if looks_like_path(self.path):
                raise ConfigurationError(f"{key}.path", f"there is no folder {self.path}", CORRECT_PATH)
            if offline():
                problem = f"`{self.path}` is not a local folder, and HF_HUB_OFFLINE forbids to fetch it"
                raise ConfigurationError(f"{key}.path", problem, "give a local folder or unset HF_HUB_OFFLINE")
            return []
        splits = self.folder / "dataset_dict.json"
        if splits.is_file():
            try:
                known = json.loads(splits.read_text(encoding="utf-8"))["splits"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = f"{splits} is damaged ({one_line(error)})"
                raise ConfigurationError(f"{key}.path", problem, "save the data set again") from error
            if self.split not in known:
                near = nearest(self.split, known)
                fix = f"did you mean `{near}`?" if near else f"it has {', '.join(known)}"
                raise ConfigurationError(f"{key}.split", f"{self.folder} has no split `{self.split}`", fix)
        elif not any(self.folder.iterdir()):
            raise ConfigurationError(f"{key}.path", f"the folder {self.folder} is empty", "put the data set there")
        return _saved(f"{key}.path", self.folder / self.split if splits.is_file() else self.folder, count)

    def count(self) -> int | None:
        folder = self.folder
        for path in (folder / "dataset_info.json", folder / self.split / "dataset_info.json") if folder else ():
            if path.is_file():
                splits = json.loads(path.read_text()).get("splits") or {}
                count = splits.get(self.split, {}).get("num_examples")
                if isinstance(count, int):
                    return count
        return None

    def identity(self) -> dict[str, Any]:
        from continual.store import hash_folder

        content = hash_folder(self.folder) if self.folder else [self.path, self.subset]
        return {**self.model_dump(exclude={"path", "subset"}), "content": content}

    def documents(self) -> "ray.data.Dataset":
        import ray.data

        return ray.data.from_huggingface(self._load()).map(as_json, num_cpus=READ_CPUS)

    def _load(self) -> Any:
        import datasets

        if self.folder and (self.folder / "state.json").is_file():
            return datasets.load_from_disk(self.path)
        if self.folder and (self.folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(self.path)[self.split]
        return datasets.load_dataset(self.path, self.subset, split=self.split)


def _saved(key: str, folder: Path, count: int) -> list[Document]:
    """Return the first documents of a data set written by `save_to_disk`; [] for a folder of other files."""
    import pyarrow as pa

    for file in sorted(folder.glob("*.arrow")):
        try:
            with pa.memory_map(str(file)) as data, pa.ipc.open_stream(data) as batches:
                return list(batches.read_next_batch().slice(0, count).to_pylist())
        except (pa.ArrowException, OSError, StopIteration) as error:
            problem = f"{file} cannot be read ({one_line(error)})"
            raise ConfigurationError(key, problem, "save the data set again") from error
    return []
