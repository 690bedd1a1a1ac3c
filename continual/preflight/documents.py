"""The first documents of a data source, read without Ray: for checks before a run, and for estimates in its plan."""

import codecs
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from continual.config.paths import CORRECT_PATH, is_uri, looks_like_path
from continual.config.problems import shown
from continual.config.references import attempt, call
from continual.config.schema import Source
from continual.config.yaml_text import kind_name
from continual.errors import ConfigurationError, one_line

Document = dict[str, Any]
TEXT_BYTES = 1 << 20
"""How much of a text file is looked at."""


def local_files(key: str, source: Source) -> list[Path]:
    """The files of a jsonl, parquet or text source. Raises ConfigurationError if there is none, or one is empty."""
    from continual.data.sources import source_files

    path = str(source.path)
    if is_uri(path):
        fix = "object storage is not supported yet; use a path on a shared file system"
        raise ConfigurationError(f"{key}.path", f"`{path}` is no local path", fix)
    files = source_files(source)
    if not files:
        if Path(path).is_dir():
            raise ConfigurationError(f"{key}.path", f"the folder {path} has no files", "put data there")
        raise ConfigurationError(f"{key}.path", f"there is no file {path}", CORRECT_PATH)
    for file in files:
        if not os.access(file, os.R_OK):
            raise ConfigurationError(f"{key}.path", f"{file} cannot be read", "change its permissions")
        if file.stat().st_size == 0:
            raise ConfigurationError(f"{key}.path", f"{file} is empty", "remove it or put data there")
    return files


def hub_folder(key: str, source: Source) -> Path | None:
    """The local folder of a hub source, or None for a hub id. Raises ConfigurationError for a path without a folder."""
    path = Path(str(source.path))
    if path.exists():
        return path
    if looks_like_path(str(source.path)):
        raise ConfigurationError(f"{key}.path", f"there is no folder {path}", CORRECT_PATH)
    return None


def first_documents(key: str, source: Source, count: int) -> list[Document]:
    """At most `count` documents, spread over the source's first files; empty where they cannot be had cheaply.

    Raises ConfigurationError, below `key`, for a source that is missing, empty or damaged in what was read.
    """
    count = min(count, source.limit or count)
    if source.type == "python":
        return _generated(key, source, count)
    if source.type == "hub":
        folder = hub_folder(key, source)
        return _saved(key, folder, source, count) if folder else []
    files = local_files(key, source)[:count]
    read = {"jsonl": _json_lines, "parquet": _parquet, "text": _text}[source.type]
    each = -(-count // len(files))
    found = [document for file in files for document in read(f"{key}.path", file, each)]
    if not found:
        raise ConfigurationError(f"{key}.path", f"{files[0]} has no documents", "put data there")
    return found[:count]


def _json_lines(key: str, file: Path, count: int) -> Iterator[Document]:
    place = file.name
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
            for number, line in itertools.islice(numbered, count):
                place = f"{file.name} line {number}"
                yield _object(key, place, line)
    except UnicodeDecodeError as error:
        raise ConfigurationError(key, f"{place}: this is no UTF-8 text", "save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(key, f"{place}: cannot be read ({one_line(error)})", "replace the file") from error


def _object(key: str, place: str, line: str) -> Document:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        whole = line.lstrip().startswith("[") or line.strip() == "{"
        fix = "write one JSON object per line" + (", not one array or object over many lines" if whole else "")
        problem = f"{place}: this is no JSON ({error.msg} at column {error.colno}): {shown(line.strip()[:60])}"
        raise ConfigurationError(key, problem, fix) from error
    if not isinstance(value, dict):
        raise ConfigurationError(key, f"{place}: a {kind_name(value)}, not an object", "write one JSON object per line")
    return value


def _parquet(key: str, file: Path, count: int) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=count):
                yield from batch.to_pylist()
                return
    except (pa.ArrowException, OSError) as error:
        problem = f"{file.name} is no parquet file ({one_line(error)})"
        raise ConfigurationError(key, problem, "write it again or correct `type`") from error


def _text(key: str, file: Path, count: int) -> Iterator[Document]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as data:
            text = codecs.getincrementaldecoder("utf-8")().decode(data.read(TEXT_BYTES))
    except UnicodeDecodeError as error:
        raise ConfigurationError(key, f"{file.name} is no UTF-8 text", "save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(key, f"{file.name} cannot be read ({one_line(error)})", "replace the file") from error
    if text.strip():
        yield {"text": text}


def _generated(key: str, source: Source, count: int) -> list[Document]:
    reference = str(source.rows)
    found = call(f"{key}.rows", reference, source.arguments)
    take = attempt(f"{key}.rows", reference, lambda: list(itertools.islice(iter(found), count)))
    if not take:
        raise ConfigurationError(f"{key}.rows", f"`{reference}` yields nothing", "yield one dict per document")
    for document in take:
        if not isinstance(document, dict):
            problem = f"`{reference}` yields a {kind_name(document)}"
            raise ConfigurationError(f"{key}.rows", problem, "yield one dict per document")
    return take


def _saved(key: str, folder: Path, source: Source, count: int) -> list[Document]:
    """Documents of a data set written by `save_to_disk`; empty for a folder of other files."""
    import pyarrow as pa

    split = folder / source.split if (folder / "dataset_dict.json").is_file() else folder
    for file in sorted(split.glob("*.arrow")):
        try:
            with pa.memory_map(str(file)) as data, pa.ipc.open_stream(data) as batches:
                return batches.read_next_batch().slice(0, count).to_pylist()
        except (pa.ArrowException, OSError, StopIteration) as error:
            problem = f"{file} cannot be read ({one_line(error)})"
            raise ConfigurationError(f"{key}.path", problem, "save the data set again") from error
    return []
