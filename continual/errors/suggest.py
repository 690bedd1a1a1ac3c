"""Suggestions for a misspelled word: "did you mean"."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], length_difference: int | None = None) -> str | None:
    """Return the known word that `word` was probably meant to be, or None if none is similar enough.

    Args:
        word: What was written.
        known: The words that are allowed.
        length_difference: Compare only with words whose length differs by at most this many characters. Speeds up the
            search through thousands of words.
    """
    if length_difference is not None:
        known = (other for other in known if abs(len(other) - len(word)) <= length_difference)
    matches = difflib.get_close_matches(word, list(known), 1, cutoff=0.6)
    return matches[0] if matches else None
