"""Texts to token ids, and which tokens hold given characters of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Spans = Sequence[tuple[int, int]]
Encoded = tuple[list[int], list[range]]
"""The ids of a text without special tokens, and for each of its spans of characters the tokens that hold any of it."""
CALL_CHARACTERS = 1 << 20
"""Texts that are encoded in one call have about so many characters together: the results need several times as much."""
IDS_ALONE = {"return_attention_mask": False, "return_token_type_ids": False}
WITH_OFFSETS = {**IDS_ALONE, "return_offsets_mapping": True}


def encode_texts(tokenizer: Any, texts: Sequence[tuple[str, Spans]]) -> list[Encoded | Exception]:
    """Encode texts with their spans, many in one call; a text that the tokenizer fails on leaves its exception.

    Tokenizers without offsets (written in Python) are asked where the tokens of the text before a span end.
    """
    fast = getattr(tokenizer, "is_fast", True)
    made: list[Encoded | Exception] = [([], [])] * len(texts)
    for offsets in (False, True):
        # Offsets take several times the memory: only where a span asks for them.
        numbers = [number for number, (_, spans) in enumerate(texts) if (bool(spans) and fast) == offsets]
        options = WITH_OFFSETS if offsets else IDS_ALONE if fast else {}
        for call in _calls(numbers, texts):
            encoded = _called(tokenizer, [texts[number][0] for number in call], options)
            for number, found in zip(call, encoded, strict=True):
                made[number] = found if isinstance(found, Exception) else _spanned(tokenizer, *texts[number], *found)
    return made


def _calls(numbers: Sequence[int], texts: Sequence[tuple[str, Spans]]) -> Iterator[list[int]]:
    """Yield the numbers of texts that are encoded together."""
    call: list[int] = []
    characters = 0
    for number in numbers:
        call.append(number)
        characters += len(texts[number][0])
        if characters >= CALL_CHARACTERS:
            yield call
            call, characters = [], 0
    if call:
        yield call


def _called(tokenizer: Any, texts: list[str], options: dict[str, bool]) -> list[tuple[list[int], Any] | Exception]:
    """Return ids and offsets, or None, of every text, or what the tokenizer raises for it alone."""
    try:
        encoded = tokenizer(texts, add_special_tokens=False, **options)
        offsets = encoded["offset_mapping"] if "return_offsets_mapping" in options else [None] * len(texts)
        return list(zip(encoded["input_ids"], offsets, strict=True))
    except Exception as error:  # tokenizers raises bare Exception
        return [error] if len(texts) == 1 else [_called(tokenizer, [text], options)[0] for text in texts]


def _spanned(tokenizer: Any, text: str, spans: Spans, ids: list[int], offsets: Any) -> Encoded | Exception:
    if offsets is not None:
        places = np.asarray(offsets, np.int64).reshape(-1, 2)
        return ids, [_holding(places, first, last) for first, last in spans]
    try:
        return ids, [_range_before(tokenizer, text, ids, first, last) for first, last in spans]
    except Exception as error:  # of the tokenizer
        return error


def _range_before(tokenizer: Any, text: str, ids: list[int], first: int, last: int) -> range:
    """Return the tokens of the characters from `first` to `last`, by what the texts before them are encoded to."""

    def until(place: int) -> tuple[int, bool]:
        """Return the common tokens of the text and its first `place` characters, and whether those are all tokens."""
        before = list(tokenizer(text[:place], add_special_tokens=False)["input_ids"])
        pairs = zip(before, ids, strict=False)
        same = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(before), len(ids)))
        return same, same == len(before)

    start, (stop, exact) = until(first)[0], until(last)
    return range(start, stop if exact else stop + 1)


def _holding(offsets: np.ndarray, first: int, last: int) -> range:
    """Return the tokens with a character of `first` to `last`.

    A token of whitespace alone may stand as an empty range at its end: byte-level tokenizers trim their offsets.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    empty = (starts == ends) & (ends > first) & (ends <= last)
    held = np.flatnonzero(((starts < ends) & (ends > first) & (starts < last)) | empty)
    return range(int(held[0]), int(held[-1]) + 1) if len(held) else range(0)
