"""A text to token ids, and which tokens hold given characters of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def encode_spans(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int], list[range]]:
    """Return a text's ids without special tokens, and for each span of characters the tokens that hold any of it.

    Tokenizers without offsets (written in Python) are asked where the tokens of the text before a span end.
    """
    if getattr(tokenizer, "is_fast", True):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        return ids, [_holding(offsets, first, last) for first, last in spans]
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def until(place: int) -> tuple[int, bool]:
        """Return the common tokens of the text and its first `place` characters, and whether those are all tokens."""
        before = list(tokenizer(text[:place], add_special_tokens=False)["input_ids"])
        pairs = zip(before, ids, strict=False)
        same = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(before), len(ids)))
        return same, same == len(before)

    ranges = []
    for first, last in spans:
        start, (stop, exact) = until(first)[0], until(last)
        ranges.append(range(start, stop if exact else stop + 1))
    return ids, ranges


def _holding(offsets: np.ndarray, first: int, last: int) -> range:
    """Return the tokens with a character of `first` to `last`.

    A token of whitespace alone may stand as an empty range at its end: byte-level tokenizers trim their offsets.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    empty = (starts == ends) & (ends > first) & (ends <= last)
    held = np.flatnonzero(((starts < ends) & (ends > first) & (starts < last)) | empty)
    return range(int(held[0]), int(held[-1]) + 1) if len(held) else range(0)
