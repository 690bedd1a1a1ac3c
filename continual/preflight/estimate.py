"""How many rows a data source makes: exactly if they are stored, else from a sample of its documents."""

import gzip
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from continual.config.references import call
from continual.config.schema import Source
from continual.data.packing import best_fit
from continual.data.sources import source_identity
from continual.preflight.check_data import fields
from continual.preflight.documents import Document, first_documents, hub_folder, local_files
from continual.preflight.tokenizer_facts import TokenizerFacts

SAMPLE = 200
"""Documents that are tokenised for an estimate."""
SAMPLE_CHARACTERS = 200_000
COUNT_BYTES = 16 << 20
"""How far into a file lines are counted."""
COUNT_SECONDS = 0.5
"""How long a user's generator is run to count what it yields."""
HASH_BYTES = 256 << 20
"""Larger sources are not hashed to look for their stored rows; the run itself does."""


def epoch_steps(epochs: float, rows: int, batch_rows: int) -> int:
    """Optimizer steps of so many passes over `rows`; the last step may begin another pass."""
    return max(1, math.ceil(epochs * rows / batch_rows))


def stored_rows(store: Path, source: Source, row_tokens: int) -> int | None:
    """Rows of the source in the store, None if there are none, or several kinds, by different tokenizers."""
    manifests = list((store / "rows").glob("*/manifest.json"))
    if not manifests or (source.type not in ("python", "hub") and _bytes(source) > HASH_BYTES):
        return None
    if source.type == "hub" and not Path(str(source.path)).is_dir():
        return None
    identity = json.loads(json.dumps(source_identity(source)))
    found = set()
    for path in manifests:
        manifest = json.loads(path.read_text())
        if manifest["inputs"].get("source") == identity and manifest["inputs"].get("row_tokens") == row_tokens:
            found.add(int(manifest["counts"]["rows"]))
    return found.pop() if len(found) == 1 else None


def estimated_rows(source: Source, tokenizer: TokenizerFacts | None, row_tokens: int) -> tuple[int | None, str]:
    """About how many rows the source makes, None if that cannot be told, and a warning or ""."""
    documents = first_documents("data", source, SAMPLE)
    total = count_documents(source)
    encoder = tokenizer.tokenizer if tokenizer else None
    if encoder is None or not documents or total is None:
        return None, ""
    sample, characters = [], 0
    for parts in (_texts(source, document) for document in documents):
        sample.append([part[:SAMPLE_CHARACTERS] for part in parts])
        characters += sum(map(len, sample[-1]))
        if characters >= SAMPLE_CHARACTERS:
            break
    special = int(tokenizer is not None and tokenizer.bos is not None) + int(source.end_token)
    try:
        lengths = [
            special + sum(len(encoder.encode(part, add_special_tokens=False).ids) for part in parts) for parts in sample
        ]
    except Exception as error:  # tokenizers raises bare Exception
        return None, f"a document cannot be tokenised ({' '.join(str(error).split())[:120]})"
    if source.type == "text":
        tokens = sum(lengths) * _bytes(source) / max(1, sum(len(part.encode()) for parts in sample for part in parts))
        return math.ceil(tokens / row_tokens), ""
    kept, lost = _fitting(lengths, row_tokens, source.overlong == "cut")
    warning = f"{lost} of {len(lengths)} sampled documents are longer than a row and would be dropped" if lost else ""
    rows = len(best_fit(kept, row_tokens)) / len(lengths) * total
    return max(1, math.ceil(rows)) if kept else 0, warning


def _fitting(lengths: Sequence[int], row_tokens: int, cut: bool) -> tuple[list[int], int]:
    """Lengths after cutting or dropping what is longer than a row, and how many were dropped."""
    if cut:
        return [min(length, row_tokens) for length in lengths], 0
    kept = [length for length in lengths if length <= row_tokens]
    return kept, len(lengths) - len(kept)


def _texts(source: Source, document: Document) -> list[str]:
    """A document's parts, which are tokenised one by one.

    A chat's turns stand without the template, which is taken to add three tokens to role and content.
    """
    values: list[Any] = [document[name] for name in fields(source, document)]
    if isinstance(values[0], list | tuple):
        return [f"{turn['role']}\n{turn['content']}. . ." for turn in values[0]]
    return [str(value) for value in values]


def count_documents(source: Source) -> int | None:
    """About how many documents the source has, None if that takes too long to tell."""
    if source.type in ("jsonl", "text"):
        files = local_files("data", source)
        count: float | None = len(files) if source.type == "text" else sum(_lines(file) for file in files)
    elif source.type == "parquet":
        import pyarrow.parquet as pq

        count = sum(pq.read_metadata(file).num_rows for file in local_files("data", source))
    elif source.type == "hub":
        count = _saved_count(source)
    else:
        count = _generated_count(source)
    if count is None:
        return None
    return min(round(count), source.limit or round(count))


def _lines(file: Path) -> float:
    """Lines of a file, plain or gzip: counted in its beginning and scaled by how much of the file that took."""
    with file.open("rb") as raw, gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw as data:
        lines = read = 0
        last = b"\n"
        while read < COUNT_BYTES and (block := data.read(1 << 20)):
            lines, read, last = lines + block.count(b"\n"), read + len(block), block[-1:]
        whole = not data.read(1)
        return lines + (last != b"\n") if whole else lines * file.stat().st_size / raw.tell()


def _saved_count(source: Source) -> int | None:
    folder = hub_folder("data", source)
    for path in (folder / "dataset_info.json", folder / source.split / "dataset_info.json") if folder else ():
        if path.is_file():
            splits = json.loads(path.read_text()).get("splits") or {}
            known = splits.get(source.split, {}).get("num_examples")
            if isinstance(known, int):
                return known
    return None


def _generated_count(source: Source) -> int | None:
    until = time.monotonic() + COUNT_SECONDS
    count = 0
    for _ in itertools.islice(iter(call("data.rows", str(source.rows), source.arguments)), source.limit):
        count += 1
        if count % 256 == 0 and time.monotonic() > until:
            return None
    return count


def _bytes(source: Source) -> int:
    return sum(file.stat().st_size for file in local_files("data", source))
