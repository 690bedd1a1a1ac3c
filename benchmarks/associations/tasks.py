"""Tasks and upstream stories of the benchmark as documents, from the folder of shared data."""

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from benchmarks.stories.lm_eval.documents import shared
from benchmarks.stories.texts import shakespeare

Document = dict[str, str]
LETTERS = 800
"""Characters of a document of running text."""
MOST = 1500
"""Documents of a task; 100 steps read fewer."""
COLUMNS = {  # file below `data`: the columns of question and answer
    "math/gsm8k_train.jsonl": ("question", "answer"),
    "math/simple_arithmetic_withspaces.jsonl": ("context", "continuation"),
    "math/svamp.jsonl": ("context", "chain_of_thought"),
    "code/mbpp.jsonl": ("text", "code"),
    "medical/medqa_test.jsonl": ("question", "answer"),
    "instruct/alpaca_en_demo.json": ("instruction", "output"),
    "trace/NumGLUE-ds/train.json": ("prompt", "answer"),
    "trace/Py150/train.json": ("prompt", "answer"),
    "olora/agnews.jsonl.gz": ("sentence", "label"),
    "olora/amazon.jsonl.gz": ("sentence", "label"),
    "scan/simple_train.jsonl.gz": ("input", "output"),
    "induction/active_to_passive.jsonl": ("input", "output"),
    "induction/sum.jsonl": ("input", "output"),
    "induction/synonyms.jsonl": ("input", "output"),
    "induction/translation_en-de.jsonl": ("input", "output"),
    "commonsense/ARC-Easy_train.json": ("instruction", "output"),
}
TEXTS = (
    "text/tinyshakespeare.txt", "text/grimms_fairy_tales.txt", "text/wikitext2_valid.txt", "text/c4_demo.jsonl",
    "text/bible_nt_en.jsonl.gz", "text/bible_nt_de.jsonl.gz", "text/bible_nt_fr.jsonl.gz", "text/bible_nt_es.jsonl.gz",
)  # fmt: skip


def task(file: str) -> Iterator[Document]:
    """Yield the documents of a task: question and answer, or running text in pieces of about LETTERS characters."""
    if file in COLUMNS:
        question, answer = COLUMNS[file]
        known = islice(rows(file), MOST)
        yield from ({"prompt": _text(row[question]) + "\n", "completion": _text(row[answer])} for row in known)
    elif file == "text/tinyshakespeare.txt":
        yield from shakespeare("train")
    else:
        yield from islice(joined(file), MOST)


def stories(part: str) -> Iterator[Document]:
    """Yield stories like those of the model's training: 2,000 that are `measured`, or others that are `held_out`."""
    files = {"measured": ("tinystories_v2.jsonl", "tinystories_train.jsonl"), "held_out": ("tinystories_valid.jsonl",)}
    known = (row for name in files[part] for row in rows(f"text/{name}"))
    yield from ({"text": row["text"]} for row in islice(known, 2000))


def rows(file: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON file below `data`."""
    path = shared() / "data" / file
    if file.endswith(".json"):
        yield from json.loads(path.read_text())
        return
    with gzip.open(path, "rt") if file.endswith(".gz") else path.open() as lines:
        yield from map(json.loads, lines)


def _text(value: Any) -> str:
    """Write the value of a column, line breaks as the model's training has them."""
    return str(value).replace("\r\n", "\n").strip()


def joined(file: str) -> Iterator[Document]:
    """Yield the paragraphs of a text, or the texts of rows, joined to documents of about LETTERS characters."""
    if file.endswith(".txt"):
        pieces: Iterable[str] = re.split(r"\n\s*\n", (shared() / "data" / file).read_text())
    else:
        pieces = (row["text"] for row in rows(file))
    current = ""
    for piece in pieces:
        current += piece.strip() + "\n"
        if len(current) >= LETTERS:
            yield {"text": current}
            current = ""
