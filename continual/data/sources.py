"""Data sources as Ray Data sets of documents, one JSON text per document, and what identifies their content."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config.references import load_function, module_file
from continual.config.schema import Source
from continual.store import hash_file, hash_folder

if TYPE_CHECKING:
    import ray.data

BLOCK_BYTES = 8 << 20
"""Small blocks: tokenising starts while a large file is still being read."""


def source_files(source: Source) -> list[Path]:
    """The files behind a jsonl, parquet or text source, sorted: a file, a folder's files, or a glob's."""
    path = Path(str(source.path))
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    if path.is_file():
        return [path]
    return sorted(p for p in path.parent.glob(path.name) if p.is_file()) if path.parent.is_dir() else []


def source_identity(source: Source) -> dict[str, Any]:
    """JSON-able identity of a source's content and format: files by hash, functions by their module's text."""
    identity: dict[str, Any] = source.model_dump(exclude={"path", "split", "subset"})
    if source.type == "python":
        identity["module"] = hash_file(module_file(str(source.rows)))
    elif source.type == "hub":
        local = Path(str(source.path)).is_dir()
        identity["content"] = hash_folder(str(source.path)) if local else [source.path, source.subset]
        identity["split"] = source.split
    else:
        identity["content"] = [hash_file(path) for path in source_files(source)]
    return identity


def _open(path: str) -> Any:
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return Path(path).open(encoding="utf-8")


def _json_lines(row: dict[str, Any]) -> Iterator[dict[str, str]]:
    with _open(row["path"]) as file:
        yield from ({"item": line} for line in file if line.strip())


def _whole_text(row: dict[str, Any]) -> Iterator[dict[str, str]]:
    with _open(row["path"]) as file:
        yield {"item": json.dumps({"text": file.read()})}


class _Generated:
    """Calls a user's generator on the cluster."""

    def __init__(self, reference: str, arguments: dict[str, Any]):
        self.reference, self.arguments = reference, arguments

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, str]]:
        for document in load_function("", self.reference)(**self.arguments):
            yield {"item": json.dumps(document)}


def _as_json(row: dict[str, Any]) -> dict[str, str]:
    return {"item": json.dumps(row, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))}


def documents(source: Source) -> "ray.data.Dataset":
    """Documents in a fixed order, column `item`: one JSON object per document with the source's own keys."""
    import ray.data

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    if source.type == "python":
        found = ray.data.range(1).flat_map(_Generated(str(source.rows), source.arguments), num_cpus=0.5)
    elif source.type in ("jsonl", "text"):
        paths = [{"path": str(path)} for path in source_files(source)]
        read = _json_lines if source.type == "jsonl" else _whole_text
        found = ray.data.from_items(paths, override_num_blocks=len(paths)).flat_map(read, num_cpus=0.5)
    elif source.type == "parquet":
        found = ray.data.read_parquet([str(path) for path in source_files(source)]).map(_as_json, num_cpus=0.5)
    else:
        found = ray.data.from_huggingface(_hub(source)).map(_as_json, num_cpus=0.5)
    return found.limit(source.limit) if source.limit else found


def _hub(source: Source) -> Any:
    """A Hugging Face data set: a folder written by `save_to_disk`, a folder of files, or a hub id."""
    import datasets

    path = str(source.path)
    if (Path(path) / "state.json").is_file():
        return datasets.load_from_disk(path)
    if (Path(path) / "dataset_dict.json").is_file():
        return datasets.load_from_disk(path)[source.split]
    return datasets.load_dataset(path, source.subset, split=source.split)
