"""How many rows a data source makes: exactly if they are stored, else from a sample of its documents."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data.packing import best_fit
from continual.errors import fingerprinted
from continual.preflight.check_data import FIRST
from continual.preflight.tokenizer_facts import TokenizerFacts
from continual.store.json_files import has, known_json
from continual.store.revisions import REVISIONS

SAMPLE_CHARACTERS = 200_000
HASH_BYTES = 256 << 20
"""Larger sources are not hashed to look for their stored rows; the run itself does."""


def epoch_steps(epochs: float, rows: int, batch_rows: int) -> int:
    """Return the optimizer steps of so many passes over `rows`; the last step may begin another pass."""
    return max(1, math.ceil(epochs * rows / batch_rows))


def stored_rows(store: Path, source: Source, row_tokens: int) -> int | None:
    """Return the source's rows in the store; None if there are none, or several sets by different tokenizers."""
    manifests = list((store / "rows").glob("*/manifest.json"))
    if not manifests or sum(file.stat().st_size for file in source.files()) > HASH_BYTES:
        return None
    wanted = json.loads(json.dumps({"source": fingerprinted(source.identity()), "row_tokens": row_tokens}))
    # A damaged one says nothing of its rows, which are made again if they are asked for.
    stored = [entry for path in manifests if (entry := known_json(path, has(inputs=dict, counts=dict)))]
    stored = [entry for entry in stored if entry.get("revision", 1) == REVISIONS["rows"]]
    counts = {entry["counts"].get("rows") for entry in stored if wanted.items() <= entry["inputs"].items()}
    return counts.pop() if len(counts) == 1 else None


def estimated_rows(source: Source, tokenizer: TokenizerFacts | None, row_tokens: int) -> tuple[int | None, str]:
    """Return about how many rows the source makes, None if that is unknown, and a warning or ""."""
    first = source.first("data", FIRST)
    others = first.selection.left_out + len(first.skipped)
    total = count_documents(source, len(first.found) / max(1, len(first.found) + others))
    encoder = tokenizer.tokenizer if tokenizer else None
    if encoder is None or not first.found or total is None:
        return None, ""
    sample, characters = [], 0
    for parts in (_texts(found.example) for found in first.found if found.example):
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
        return None, f"a document cannot be tokenized ({' '.join(str(error).split())[:120]})"
    if source.text_bytes is not None and source.cuts:
        sampled_bytes = sum(len(part.encode()) for parts in sample for part in parts)
        return math.ceil(sum(lengths) * source.text_bytes / max(1, sampled_bytes) / row_tokens), ""
    kept, lost = _fitting(lengths, row_tokens, source.cuts)
    warning = f"{lost} of {len(lengths)} sampled documents are longer than a row and would be dropped" if lost else ""
    rows = len(best_fit(kept, row_tokens)) / len(lengths) * total
    return max(1, math.ceil(rows)) if kept else 0, warning


def count_documents(source: Source, share: float = 1.0) -> int | None:
    """Return about how many documents are used, None if counting them takes too long; of a sample it was `share`."""
    count = source.count()
    return count if count is None else min(round(count * share), source.limit or count)


def _fitting(lengths: Sequence[int], row_tokens: int, cut: bool) -> tuple[list[int], int]:
    """Return the lengths after cutting or dropping what is longer than a row, and how many were dropped."""
    if cut:
        return [min(length, row_tokens) for length in lengths], 0
    kept = [length for length in lengths if length <= row_tokens]
    return kept, len(lengths) - len(kept)


def _texts(example: Example) -> list[str]:
    """Return a document's parts, which are tokenized one by one.

    A chat's turns come without the template, which is taken to add three tokens to role and content.
    """
    if example.kind == "messages":
        return [f"{turn['role']}\n{turn['content'] or ''}. . ." for turn in example.messages]
    return [example.prompt, example.completion] if example.kind == "prompt" else [example.text]
