"""From documents to pieces of token ids and weights, in Ray Data tasks."""

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data import formats
from continual.data.read import as_text
from continual.data.spans import encode_texts
from continual.errors import ConfigurationError, one_line
from continual.models.load import load_tokenizer

Made = list[formats.Piece] | ConfigurationError
THREADS = 2
"""Threads in which a task encodes texts: half as many processes need not import transformers."""


class Tokenize:
    """Blocks of documents (see `read_all`) to tables of pieces; runs in Ray Data tasks.

    Columns: `ids`, `weights` and `outcome` of a piece; `first`, whether it is the first one of its document; `chat`,
    whether that is a conversation; `problem` and `end` as in `read_all`.
    """

    def __init__(self, model: str, source: Source, row_tokens: int):
        self.model, self.source, self.row_tokens = model, source, row_tokens

    def __call__(self, block: pa.Table) -> pa.Table:
        os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))  # of the tokenizers; read when they start
        with no_collection():
            return self._pieces(block)

    def _pieces(self, block: pa.Table) -> pa.Table:
        items, problems, ends = (block.column(name).to_pylist() for name in ("item", "problem", "end"))
        examples = [Example(**json.loads(item)) if item else None for item in items]
        made = all_pieces([e for e in examples if e], self.source, load_tokenizer(self.model), self.row_tokens)
        of_each = iter(made)
        documents: list[list[formats.Piece]] = []
        for number, example in enumerate(examples):
            found: Made = next(of_each) if example else [NOTHING]
            if isinstance(found, ConfigurationError):
                problems[number] = as_text(found.at(json.loads(block.column("place")[number].as_py())))
                found = [NOTHING]
            documents.append(found)
        chats = [example is not None and example.kind == "messages" for example in examples]
        return _table(documents, chats, problems, ends)


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from looking for reference cycles: encoding makes very many lists and none, and the search takes a
    quarter of its time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _table(documents: list[list[formats.Piece]], chats: list[bool], problems: list[str], ends: list[str]) -> pa.Table:
    """Return the pieces of documents as a table."""
    counts = [len(pieces) for pieces in documents]
    first = np.zeros(sum(counts), bool)
    first[np.cumsum([0, *counts])[:-1]] = True
    pieces = [piece for made in documents for piece in made]
    offsets = pa.array(np.cumsum([0, *(len(piece.ids) for piece in pieces)], dtype=np.int64))
    ids = np.concatenate([NOTHING.ids, *(piece.ids for piece in pieces)])
    weights = np.concatenate([NOTHING.weights, *(piece.weights for piece in pieces)])
    outcomes = np.array([piece.outcome for piece in pieces], np.int8)
    of = np.repeat(np.arange(len(documents)), counts)
    none = np.array([bool(problem or end) for problem, end in zip(problems, ends, strict=True)], bool)
    outcomes[none[of]] = formats.PROBLEM
    return pa.table({
        "ids": pa.LargeListArray.from_arrays(offsets, pa.array(ids)),
        "weights": pa.LargeListArray.from_arrays(offsets, pa.array(weights)),
        "outcome": outcomes,
        "first": first,
        "chat": np.array(chats, bool)[of],
        "problem": pa.array(problems, pa.large_string()).take(of),
        "end": pa.array(ends, pa.large_string()).take(of),
    })  # fmt: skip


NOTHING = formats.Piece(np.zeros(0, np.int32), np.zeros(0, np.float32), formats.PROBLEM)


def document_pieces(example: Example, source: Source, tokenizer: Any, row_tokens: int) -> list[formats.Piece]:
    """Return the pieces of a document; those without a position to learn from are UNLEARNABLE.

    Raises:
        ConfigurationError: The document cannot be turned into tokens.
    """
    [made] = all_pieces([example], source, tokenizer, row_tokens)
    if isinstance(made, ConfigurationError):
        raise made
    return made


def all_pieces(examples: Sequence[Example], source: Source, tokenizer: Any, row_tokens: int) -> list[Made]:
    """Return the pieces of every document, or why it cannot be turned into tokens (see `document_pieces`)."""
    try:
        around = formats.frame(source, tokenizer)
    except Exception as error:  # tokenizers raises bare Exception
        return [_failure(error) if example.has_answer else _unlearnable() for example in examples]
    texts = [_written(example, tokenizer, around) for example in examples]
    flat = [(script.text, script.spans) for scripts in texts if isinstance(scripts, list) for script in scripts]
    encoded = iter(encode_texts(tokenizer, flat))
    made: list[Made] = []
    for example, scripts in zip(examples, texts, strict=True):
        if isinstance(scripts, ConfigurationError):
            made.append(scripts)
            continue
        found = [next(encoded) for _ in scripts]
        whole = [ids for ids in found if not isinstance(ids, Exception)]
        if len(whole) < len(found):
            made.append(_failure(next(error for error in found if isinstance(error, Exception))))
        elif not example.has_answer:
            made.append(_unlearnable())
        else:
            made.append(_learnable(formats.pieces(example, scripts, whole, source.cuts, around, row_tokens)))
    return made


def _written(example: Example, tokenizer: Any, around: formats.Frame) -> list[formats.Script] | ConfigurationError:
    try:
        return formats.written(example, tokenizer, around) if example.has_answer else []
    except Exception as error:  # of the tokenizer or its chat template
        return _failure(error)


def _failure(error: Exception) -> ConfigurationError:
    if isinstance(error, ConfigurationError):
        return error
    problem = f"the tokenizer or its chat template fails on it ({type(error).__name__}: {one_line(error)})"
    failure = ConfigurationError("", problem, "change the document or the tokenizer")
    failure.__cause__ = error
    return failure


def _unlearnable() -> list[formats.Piece]:
    return [formats.Piece(NOTHING.ids, NOTHING.weights, formats.UNLEARNABLE)]


def _learnable(pieces: list[formats.Piece]) -> list[formats.Piece]:
    for piece in pieces:
        if piece.outcome in (formats.WHOLE, formats.CUT) and not piece.weights.any():
            piece.outcome = formats.UNLEARNABLE
    return pieces
