"""One document to token ids and loss weights.

`weights[t]` is the weight of predicting token t from the tokens before it; a document's first token has nothing before
it, so its weight is always 0. Masks come from character spans, never from `ids != pad`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data.chat import Script, scripts
from continual.data.spans import Encoded
from continual.models.template import chat_template

WHOLE, CUT, DROPPED, EMPTY, LOST, UNLEARNABLE, PROBLEM = range(7)
"""What became of a document: a row's worth of tokens, a part of it, too long, without tokens; an answer too long for a
row with anything before it; nothing in it to learn; refused."""


@dataclass
class Piece:
    """Token ids (int32) and loss weights (float32) of equal length; only those of a WHOLE or CUT piece are trained."""

    ids: np.ndarray
    weights: np.ndarray
    outcome: int


@lru_cache(maxsize=8)
def special_prefix(tokenizer: Any) -> list[int]:
    """Return what the tokenizer itself puts before every text: its BOS, more than one token, or nothing."""
    text = _known_text(tokenizer)
    plain, around = _plain(tokenizer, text), list(tokenizer(text, add_special_tokens=True)["input_ids"])
    places = range(len(around) - len(plain) + 1)
    return next((around[:place] for place in places if around[place : place + len(plain)] == plain), [])


def _known_text(tokenizer: Any) -> str:
    """Return a short text that the tokenizer has tokens for; one of few tokens raises for any other."""
    try:
        _plain(tokenizer, "a")
        return "a"
    except Exception:  # tokenizers raises bare Exception
        ordinary = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
        return min(ordinary, key=lambda token: (len(token), token), default="")


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Frame:
    """What stands around every text: the tokenizer's own prefix, and the end-of-text token, where there is one."""

    prefix: list[int]
    end: int | None
    end_text: str


def frame(source: Source, tokenizer: Any) -> Frame:
    """Return what the texts of a source get from a tokenizer."""
    end = tokenizer.eos_token_id if source.end_token else None
    return Frame(special_prefix(tokenizer), end, str(getattr(tokenizer, "eos_token", None) or ""))


def written(example: Example, tokenizer: Any, around: Frame) -> list[Script]:
    """Return the texts of a document as they are tokenized, and which of their characters are learned.

    A running text names no characters, because all of it is learned.

    Raises:
        ConfigurationError: The chat template refuses the conversation, or leaves out a part of it.
    """
    if example.kind == "messages":
        return scripts(example, chat_template(tokenizer), around.end is not None)
    if example.kind == "text":
        return [Script(example.text, ())]
    text = example.prompt + example.completion
    return [Script(text, ((len(example.prompt), len(text)),))]


def pieces(
    example: Example, texts: Sequence[Script], encoded: Sequence[Encoded], cuts: bool, around: Frame, row_tokens: int
) -> list[Piece]:
    """Return the pieces of one document, none longer than `row_tokens` tokens.

    Running text that is too long and may be cut becomes consecutive pieces, each after the tokenizer's own prefix. Of
    an answer that may be cut, only what stands before it is: each answer that does not end within the row becomes a
    piece of its own, with as much before it as there is room for.

    Args:
        example: What is learned of the document.
        texts: Its texts (see `written`).
        encoded: Their ids, and the tokens of what is learned.
        cuts: Whether it may be cut.
        around: What stands around its texts.
        row_tokens: Longest piece.

    Returns:
        At least one piece; those that are not trained are without tokens and say why.
    """
    if example.kind == "messages":
        return _pieces_of_chat(texts, encoded, cuts, around, row_tokens)
    [script], [(ids, answers)], prefix = texts, encoded, around.prefix
    own = _brought(prefix, ids)
    body, end = ids[own:], _end(around, script.text, ids)
    if example.kind == "text":
        return _pieces_of_text(prefix, body + end, cuts, row_tokens)
    [learned] = answers
    shift = len(prefix) - own
    first = max(learned.start + shift, len(prefix)) if learned else len(prefix) + len(body)
    whole = prefix + body + end
    return _pieces_of_answers(whole, len(prefix), [range(first, len(whole))], cuts, row_tokens)


def _brought(prefix: list[int], ids: list[int]) -> int:
    """Return how many ids at the beginning of a text are of the tokenizer's prefix: it brings its own BOS."""
    lengths = range(min(len(prefix), len(ids)), 0, -1)
    return next((length for length in lengths if prefix[-length:] == ids[:length]), 0)


def _end(around: Frame, text: str, ids: list[int]) -> list[int]:
    """Return the end-of-text token, or nothing if the text brings its own or is to have none."""
    if around.end is None:
        return []
    own = ids[-1:] == [around.end] or (
        around.end in ids and bool(around.end_text) and text.rstrip().endswith(around.end_text)
    )
    return [] if own else [around.end]


def _pieces_of_text(prefix: list[int], body: list[int], cuts: bool, row_tokens: int) -> list[Piece]:
    room = row_tokens - len(prefix)
    if len(prefix) + len(body) < 2:
        return [_none(EMPTY)]
    if len(body) <= room:
        return [_weighted(prefix + body, [range(len(prefix), len(prefix) + len(body))], WHOLE)]
    if not cuts or room < 1:
        return [_none(DROPPED)]
    parts = [body[start : start + room] for start in range(0, len(body), room)]
    return [_weighted(prefix + part, [range(len(prefix), len(prefix) + len(part))], CUT) for part in parts]


def _pieces_of_chat(
    texts: Sequence[Script], encoded: Sequence[Encoded], cuts: bool, around: Frame, row_tokens: int
) -> list[Piece]:
    made: list[Piece] = []
    for script, (plain, spans) in zip(texts, encoded, strict=True):
        ids, answers = plain, list(spans)
        if script.ends and around.end is not None:
            answers[-1] = range(answers[-1].start if answers[-1] else len(ids), len(ids) + 1)
            ids = [*ids, around.end]
        # A conversation has the prefix that the template writes.
        head = len(around.prefix) if ids[: len(around.prefix)] == around.prefix else 0
        made += _pieces_of_answers(ids, head, answers, cuts, row_tokens)
    return made or [_none(UNLEARNABLE)]


def _pieces_of_answers(ids: list[int], head: int, answers: Sequence[range], cuts: bool, row_tokens: int) -> list[Piece]:
    """Return the pieces of a document with answers; its first `head` tokens stand at the beginning of every piece."""
    if len(ids) < 2:
        return [_none(EMPTY)]
    answers = [answer for answer in answers if answer.stop > max(answer.start, 1)]
    if not answers:
        return [_none(UNLEARNABLE)]
    if len(ids) <= row_tokens:
        return [_weighted(ids, answers, WHOLE)]
    if not cuts:
        return [_none(DROPPED)]
    within = [answer for answer in answers if answer.stop <= row_tokens]
    pieces = [_weighted(ids[: within[-1].stop], within, CUT)] if within else []
    for answer in answers[len(within) :]:
        room = row_tokens - head - len(answer)
        if room < (0 if head else 1):
            pieces.append(_none(LOST))
            continue
        first = max(head, answer.start - room)
        kept = ids[:head] + ids[first : answer.stop]
        pieces.append(_weighted(kept, [range(len(kept) - len(answer), len(kept))], CUT))
    return pieces


def _weighted(ids: list[int], answers: Sequence[range], outcome: int) -> Piece:
    weights = np.zeros(len(ids), np.float32)
    for answer in answers:
        weights[answer.start : answer.stop] = 1.0
    weights[:1] = 0.0
    return Piece(np.asarray(ids, np.int32), weights, outcome)


def _none(outcome: int) -> Piece:
    return Piece(np.zeros(0, np.int32), np.zeros(0, np.float32), outcome)
