"""A source is read in blocks and encoded many documents at a time, and nothing of that can be seen in the rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.contract.example import Example
from continual.contract.source import Document, Source
from continual.data import spans
from continual.data.read import SCHEMA, TABLE_DOCUMENTS, rows, tables
from continual.data.sources.jsonl import JsonlSource
from continual.data.spans import encode_texts
from continual.data.tokenize import Tokenize, all_pieces
from continual.errors import ConfigurationError
from tests.unit.data.test_formats import Letters
from tests.unit.data.test_tokens import KINDS

TEXT = st.text("abcQ: 1=+<s>/\n\u2581é", max_size=30)


class Endless(Source):
    """Documents without end: whoever waits for the last one waits for ever."""

    def parts(self) -> list[str]:
        return [""]

    def read(self, part: str) -> Iterator[tuple[str, Document]]:
        number = 0
        while True:
            yield f"number {number}", {"text": f"t{number}"}
            number += 1

    def count(self) -> int | None:
        return None

    def identity(self) -> dict[str, Any]:
        return {}


def test_documents_go_on_while_their_part_is_read() -> None:
    source = Endless(type="endless", text="text")
    found = tables(source, source.selection(), {"part": [""]})
    numbers = [json.loads(item)["text"] for _ in range(3) for item in next(found).column("item").to_pylist()]
    assert numbers == [f"t{number}" for number in range(3 * TABLE_DOCUMENTS)]


def test_tables_hold_what_is_read_and_end_with_every_part(tmp_path: Path) -> None:
    for name, count in (("a", TABLE_DOCUMENTS), ("b", 3)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"t": "{name}{n}"}}\n' for n in range(count)))
    source = JsonlSource(path=str(tmp_path), text="t")
    made = list(tables(source, source.selection(), {"part": source.parts()}))
    assert [len(table) for table in made] == [TABLE_DOCUMENTS, 1, 4]
    plain = [row for part in source.parts() for row in rows(source, source.selection(), part)]
    assert [tuple(row.values()) for table in made for row in table.to_pylist()] == plain
    assert [bool(row[3]) for row in plain].count(True) == 2


def test_a_place_may_have_letters_that_are_no_unicode() -> None:
    """As the name of a file may."""

    class Odd(Endless):
        def read(self, part: str) -> Iterator[tuple[str, Document]]:
            yield "caf\udce9.txt", {"text": "a"}

    source = Odd(type="odd", text="text")
    [table] = tables(source, source.selection(), {"part": [""]})
    assert json.loads(table.column("place")[0].as_py()) == "caf\udce9.txt"


def test_a_block_without_documents_gives_a_table_without_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.data.tokenize.load_tokenizer", lambda _: Letters())
    made = Tokenize("letters", Endless(type="endless", text="text"), 8)(SCHEMA.empty_table())
    assert (len(made), made.column_names[:2]) == (0, ["ids", "weights"])


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(TEXT, st.booleans()), max_size=12), st.integers(1, 60))
def test_texts_get_the_ids_that_each_gets_alone(kind: str, texts: list[tuple[str, bool]], characters: int) -> None:
    tokenizer = KINDS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "CALL_CHARACTERS", characters)
        asked = [(text, ((len(text) // 2, len(text)),) if spanned else ()) for text, spanned in texts]
        found = encode_texts(tokenizer, asked)
    assert len(found) == len(texts)
    for (text, given_spans), made in zip(asked, found, strict=True):
        assert not isinstance(made, Exception)
        alone = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert made[0] == alone["input_ids"]
        for (first, last), held in zip(given_spans, made[1], strict=True):
            with_any = [n for n, (start, end) in enumerate(alone["offset_mapping"]) if start < last and end > first]
            assert not with_any or (held.start, held.stop) == (with_any[0], with_any[-1] + 1)


@given(st.lists(TEXT, max_size=20), st.integers(4, 20), st.sampled_from(["drop", "cut"]))
def test_documents_get_the_pieces_that_each_gets_alone(texts: list[str], row_tokens: int, overlong: str) -> None:
    """Also beside documents that the tokenizer fails on, and beside pairs."""

    class Failing(Letters):
        def __call__(self, text: str | list[str], add_special_tokens: bool = True, **options: Any) -> dict[str, Any]:
            if "+" in "".join(text):
                raise Exception("no +")
            return super().__call__(text, add_special_tokens, **options)

    tokenizer = Failing()
    source = JsonlSource(path="x.jsonl", text="t", overlong=overlong)
    examples = [
        Example("prompt", prompt=text[:3], completion=text[3:]) if number % 2 else Example("text", text=text)
        for number, text in enumerate(texts)
    ]
    for example, text, made in zip(examples, texts, all_pieces(examples, source, tokenizer, row_tokens), strict=True):
        [alone] = all_pieces([example], source, tokenizer, row_tokens)
        if "+" in text:
            assert isinstance(made, ConfigurationError)
            assert "(Exception: no +)" in made.problem
            assert str(made) == str(alone)
            continue
        assert not isinstance(made, ConfigurationError)
        assert not isinstance(alone, ConfigurationError)
        for one, other in zip(made, alone, strict=True):
            assert one.outcome == other.outcome
            np.testing.assert_array_equal(one.ids, other.ids)
            np.testing.assert_array_equal(one.weights, other.weights)
