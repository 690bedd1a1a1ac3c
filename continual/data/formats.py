"""One document to token ids and loss weights.

`weights[t]` is the weight of predicting token t from the tokens before it; a document's first token has nothing before
it, so its weight is always 0. Masks come from lengths and character spans, never from `ids != pad`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data.chat import encode_chat

WHOLE, CUT, DROPPED, EMPTY, LOST, UNLEARNABLE, PROBLEM = range(7)


@dataclass
class Piece:
    """Token ids (int32) and loss weights (float32) of equal length; only WHOLE and CUT pieces are trained."""

    ids: np.ndarray
    weights: np.ndarray
    outcome: int


def special_prefix(tokenizer: Any) -> list[int]:
    """Return what the tokenizer itself puts before every text: its BOS, or nothing."""
    around = tokenizer("", add_special_tokens=True)["input_ids"]
    return [token for token in around if token != tokenizer.eos_token_id or token == tokenizer.bos_token_id][:1]


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode(example: Example, source: Source, tokenizer: Any, row_tokens: int) -> list[Piece]:
    """Return the pieces of one document, none longer than `row_tokens` tokens.

    Running text that is too long and may be cut becomes consecutive pieces, each after the tokenizer's own BOS; other
    formats keep their beginning. A cut piece gets no end token: the text did not end there.
    """
    end = [tokenizer.eos_token_id] if source.end_token and tokenizer.eos_token_id is not None else []
    if example.kind == "messages":
        ids, weights = encode_chat(example.messages, tokenizer)
    else:
        prompt = _plain(tokenizer, example.prompt) if example.kind == "prompt" else []
        body = _plain(tokenizer, example.completion if example.kind == "prompt" else example.text)
        before, after = special_prefix(tokenizer) + prompt, body + end
        room = row_tokens - len(before)
        if example.kind == "text" and source.cuts and len(after) > room:
            cut = [before + after[start : start + room] for start in range(0, len(after), room)]
            return [_piece(ids, [1.0] * len(ids), CUT) for ids in cut]
        ids, weights = before + after, [0.0 if example.kind == "prompt" else 1.0] * len(before) + [1.0] * len(after)
    if len(ids) < 2:
        return [_piece([], [], EMPTY)]
    if len(ids) > row_tokens:
        return [_piece(ids[:row_tokens], weights[:row_tokens], CUT) if source.cuts else _piece([], [], DROPPED)]
    return [_piece(ids, weights, WHOLE)]


def _piece(ids: list[int], weights: list[float], outcome: int) -> Piece:
    piece = Piece(np.asarray(ids, np.int32), np.asarray(weights, np.float32), outcome)
    piece.weights[:1] = 0.0
    return piece
