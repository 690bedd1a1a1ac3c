"""Texts of the stories benchmark as documents, from the folder of shared data."""

import json
from collections.abc import Iterator
from itertools import islice

from benchmarks.stories.lm_eval.documents import shared

LETTERS = 1000
"""Characters of a Shakespeare document, about a row of 256 tokens and a half; cut at the end of a speech."""
VALID = 0.1
"""The last part of Shakespeare that is not trained on."""


def shakespeare(split: str = "train") -> Iterator[dict[str, str]]:
    """Consecutive speeches joined to documents; `split` is `train` or `valid`."""
    text = (shared() / "data" / "text" / "tinyshakespeare.txt").read_text()
    border = int(len(text) * (1 - VALID))
    part, current = text[:border] if split == "train" else text[border:], ""
    for speech in part.split("\n\n"):
        current += speech + "\n\n"
        if len(current) >= LETTERS:
            yield {"text": current}
            current = ""


def tinystories(limit: int = 300, split: str = "valid") -> Iterator[dict[str, str]]:
    """The first stories of `split`, `valid` or `train`; in the model's training a line break is a single one."""
    return _first(f"tinystories_{split}.jsonl", limit)


def c4(limit: int = 300) -> Iterator[dict[str, str]]:
    """Web documents, nothing like what the model was trained on."""
    return _first("c4_demo.jsonl", limit)


def _first(file_name: str, limit: int) -> Iterator[dict[str, str]]:
    with (shared() / "data" / "text" / file_name).open() as file:
        for line in islice(file, limit):
            yield {"text": json.loads(line)["text"]}
