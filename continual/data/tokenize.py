"""From JSON documents to pieces of token ids and weights, in Ray Data tasks."""

import json
from typing import Any

import numpy as np

from continual.contract.source import Source
from continual.data import formats
from continual.errors import ConfigurationError
from continual.models.load import load_tokenizer


class Tokenize:
    """Batches of JSON documents to batches of pieces; runs in Ray Data tasks."""

    def __init__(self, model: str, source: Source, row_tokens: int):
        self.model, self.source, self.row_tokens = model, source, row_tokens

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        tokenizer = load_tokenizer(self.model)
        pieces: list[formats.Piece] = []
        problem: ConfigurationError | None = None
        for item in batch["item"]:
            try:
                example = self.source.example(json.loads(item))
                pieces += formats.encode(example, self.source, tokenizer, self.row_tokens)
            except ConfigurationError as error:
                problem = problem or error
            except ValueError as error:
                sentence = f"{self.source.title}: a line is not JSON ({error}): {str(item).strip()[:60]!r}"
                problem = problem or ConfigurationError("", sentence)
        # An exception raised here would leave the task without its type: Ray Data keeps only its text.
        if problem is not None:
            pieces = [formats.Piece(np.zeros(0, np.int32), np.zeros(0, np.float32), formats.PROBLEM)]
        return {
            "ids": [piece.ids for piece in pieces],
            "weights": [piece.weights for piece in pieces],
            "outcome": [piece.outcome for piece in pieces],
            "problem": [json.dumps([problem.key, problem.problem, problem.fix]) if problem else ""] * len(pieces),
        }
