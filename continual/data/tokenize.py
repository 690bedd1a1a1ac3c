"""From documents to pieces of token ids and weights, in Ray Data tasks."""

import json
import os
from collections.abc import Sequence
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
        tokenizer = load_tokenizer(self.model)
        columns = [block.column(name).to_pylist() for name in ("place", "item", "problem", "end")]
        examples = [Example(**json.loads(item)) if item else None for item in columns[1]]
        made = iter(all_pieces([e for e in examples if e], self.source, tokenizer, self.row_tokens))
        table = _Table()
        for example, place, _, problem, end in zip(examples, *columns, strict=True):
            found: Made = next(made) if example else [NOTHING]
            if isinstance(found, ConfigurationError):
                problem = as_text(found.at(json.loads(place)))
                found = [NOTHING]
            table.add(found, example is not None and example.kind == "messages", problem, end)
        return table.arrow()


class _Table:
    """The columns of a table of pieces."""

    def __init__(self) -> None:
        self.pieces: list[formats.Piece] = []
        self.columns: dict[str, list[Any]] = {key: [] for key in ("outcome", "first", "chat", "problem", "end")}

    def add(self, pieces: list[formats.Piece], chat: bool, problem: str, end: str) -> None:
        """Add the pieces of a document."""
        for number, piece in enumerate(pieces):
            self.pieces.append(piece)
            outcome = formats.PROBLEM if problem or end else piece.outcome
            for key, value in zip(self.columns, (outcome, number == 0, chat, problem, end), strict=True):
                self.columns[key].append(value)

    def arrow(self) -> pa.Table:
        lengths = [len(piece.ids) for piece in self.pieces]
        offsets = pa.array(np.cumsum([0, *lengths], dtype=np.int64))
        lists = {
            name: pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([NONE, *parts]).astype(kind)))
            for name, kind, parts in (
                ("ids", np.int32, [piece.ids for piece in self.pieces]),
                ("weights", np.float32, [piece.weights for piece in self.pieces]),
            )
        }
        types = (pa.int8(), pa.bool_(), pa.bool_(), pa.large_string(), pa.large_string())
        other = {key: pa.array(self.columns[key], kind) for key, kind in zip(self.columns, types, strict=True)}
        return pa.table({**lists, **other})


NONE = np.zeros(0, np.int32)
NOTHING = formats.Piece(NONE, np.zeros(0, np.float32), formats.PROBLEM)


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
