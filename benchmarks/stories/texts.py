"""Texts of the stories benchmark as documents, from the folder of shared data."""

import json
from collections.abc import Iterator

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


def tinystories(limit: int = 300) -> Iterator[dict[str, str]]:
    """Validation stories; in the model's training a line break is a single one."""
    with (shared() / "data" / "text" / "tinystories_valid.jsonl").open() as file:
        for number, line in enumerate(file):
            if number == limit:
                return
            yield {"text": json.loads(line)["text"]}
