"""From documents to pieces of token ids and weights, in Ray Data tasks."""

import json
from typing import Any

import numpy as np

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data import formats
from continual.data.read import as_text
from continual.errors import ConfigurationError, one_line
from continual.models.load import load_tokenizer


class Tokenize:
    """Batches of documents (see `read_all`) to batches of pieces; runs in Ray Data tasks.

    Columns: `ids`, `weights` and `outcome` of a piece; `first`, whether it is the first one of its document; `chat`,
    whether that is a conversation; `problem` and `end` as in `read_all`.
    """

    def __init__(self, model: str, source: Source, row_tokens: int):
        self.model, self.source, self.row_tokens = model, source, row_tokens

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        tokenizer = load_tokenizer(self.model)
        made: dict[str, list[Any]] = {
            key: [] for key in ("ids", "weights", "outcome", "first", "chat", "problem", "end")
        }
        for place, item, problem, end in zip(*(batch[key] for key in ("place", "item", "problem", "end")), strict=True):
            pieces, chat = [NOTHING], False
            if item:
                example = Example(**json.loads(item))
                chat = example.kind == "messages"
                try:
                    pieces = document_pieces(example, self.source, tokenizer, self.row_tokens)
                except ConfigurationError as error:
                    problem = as_text(error.at(str(place)))
            for number, piece in enumerate(pieces):
                made["ids"].append(piece.ids)
                made["weights"].append(piece.weights)
                made["outcome"].append(formats.PROBLEM if problem or end else piece.outcome)
                made["first"].append(number == 0)
                made["chat"].append(chat)
                made["problem"].append(str(problem))
                made["end"].append(str(end))
        return made


NOTHING = formats.Piece(np.zeros(0, np.int32), np.zeros(0, np.float32), formats.PROBLEM)


def document_pieces(example: Example, source: Source, tokenizer: Any, row_tokens: int) -> list[formats.Piece]:
    """Return the pieces of a document; those without a position to learn from are UNLEARNABLE.

    Raises:
        ConfigurationError: The document cannot be turned into tokens.
    """
    if not example.has_answer:
        return [formats.Piece(NOTHING.ids, NOTHING.weights, formats.UNLEARNABLE)]
    try:
        pieces = formats.encode(example, source, tokenizer, row_tokens)
    except ConfigurationError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        problem = f"the tokenizer or its chat template fails on it ({type(error).__name__}: {one_line(error)})"
        raise ConfigurationError("", problem, "change the document or the tokenizer") from error
    for piece in pieces:
        if piece.outcome in (formats.WHOLE, formats.CUT) and not (piece.weights[1:] > 0).any():
            piece.outcome = formats.UNLEARNABLE
    return pieces
