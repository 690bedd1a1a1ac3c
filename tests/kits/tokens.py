"""One document to pieces, step by step as the tasks take many."""

from typing import Any

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data import formats
from continual.data.formats import Piece
from continual.data.spans import Encoded, Spans, encode_texts


def encode(example: Example, source: Source, tokenizer: Any, row_tokens: int) -> list[Piece]:
    around = formats.frame(source, tokenizer)
    texts = formats.written(example, tokenizer, around)
    encoded = [encode_spans(tokenizer, script.text, script.spans) for script in texts]
    return formats.pieces(example, texts, encoded, source.cuts, around, row_tokens)


def encode_spans(tokenizer: Any, text: str, spans: Spans) -> Encoded:
    [encoded] = encode_texts(tokenizer, [(text, spans)])
    if isinstance(encoded, Exception):
        raise encoded
    return encoded
