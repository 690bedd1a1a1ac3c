"""Texts of the benchmark as documents, from the folder of shared data."""

from collections.abc import Iterator
from itertools import islice

from benchmarks.associations.tasks import Document, joined, rows

PROBLEMS, HELD_OUT = 600, 60
"""Problems that the stage may read, and those on which it is measured."""
TEXTS = 30
"""Documents of each text that is measured."""


def gsm8k(part: str) -> Iterator[Document]:
    """Yield problems with their solutions: those to learn, or from the test split those that are `held_out`."""
    split, count = ("test", HELD_OUT) if part == "held_out" else ("train", PROBLEMS)
    for row in islice(rows(f"math/gsm8k_{split}.jsonl"), count):
        yield {"prompt": f"Question: {row['question']}\nAnswer:", "completion": f" {row['answer']}"}


def c4(part: str) -> Iterator[Document]:
    """Yield web pages: those that are `measured`, or the others, which are `replayed`."""
    begin, end = (0, TEXTS) if part == "measured" else (TEXTS, None)
    yield from ({"text": row["text"]} for row in islice(rows("text/c4_demo.jsonl"), begin, end))


def wikitext() -> Iterator[Document]:
    """Yield articles of an encyclopedia, in pieces."""
    yield from islice(joined("text/wikitext2_valid.txt"), TEXTS)


def tinystories() -> Iterator[Document]:
    """Yield children's stories."""
    yield from ({"text": row["text"]} for row in islice(rows("text/tinystories_valid.jsonl"), TEXTS))


def code() -> Iterator[Document]:
    """Yield small Python functions under the sentence that asks for them."""
    written = (f'"""{row["text"]}"""\n{row["code"]}' for row in rows("code/mbpp.jsonl"))
    yield from ({"text": text.replace("\r\n", "\n")} for text in islice(written, 2 * TEXTS))


def german() -> Iterator[Document]:
    """Yield verses of the German New Testament, in pieces."""
    yield from islice(joined("text/bible_nt_de.jsonl.gz"), TEXTS)
