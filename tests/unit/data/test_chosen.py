"""Documents by their numbers: those of an evaluation's records, whatever the source leaves out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.contract.registry import SOURCES
from continual.data.chosen import chosen, chosen_from, numbered, words_of
from continual.errors import ConfigurationError


def source(folder: Path, rows: list[Any], **options: Any) -> Any:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SOURCES.build({"type": "jsonl", "path": str(file), **options})


def test_numbers_count_what_is_asked_for_and_what_is_skipped(tmp_path: Path) -> None:
    rows = [{"t": "a", "k": 1}, {"t": "b", "k": 2}, {"t": 3, "k": 1}, {"t": "d", "k": 1}, {"t": "e", "k": 1}]
    made = source(tmp_path, rows, text="t", where={"k": 1}, on_bad="skip", limit=3)
    assert [(number, example.text) for number, example in numbered(made)] == [(0, "a"), (2, "d")]
    assert list(chosen(made.model_dump(mode="json"), [2])) == [{"text": "d"}]
    with pytest.raises(ConfigurationError, match="has no document 1"):
        list(chosen(made.model_dump(mode="json"), [0, 1]))
    with pytest.raises(ConfigurationError, match="line 3"):
        list(numbered(made.model_copy(update={"on_bad": "refuse"})))


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
FORMATS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"words": "text here"}, {"text": "words"}),
    ({"q": "one", "a": " two"}, {"prompt": "{q}:", "completion": "a"}),
    ({"m": TURNS}, {"messages": "m"}),
    ({"p": TURNS[:1], "c": TURNS[1:]}, {"prompt": "p", "completion": "c"}),
]


@pytest.mark.parametrize(("row", "options"), FORMATS)
@pytest.mark.parametrize("end_token", [True, False])
def test_a_chosen_document_is_learned_as_before(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], end_token: bool
) -> None:
    made = source(tmp_path, [row] * 3, **options, end_token=end_token)
    part = chosen_from(made, [1])
    assert [example for _, example in numbered(part)] == [made.example(row)]
    assert (part.end_token, part.cuts) == (end_token, made.cuts)


@given(st.sets(st.integers(0, 19), min_size=1))
def test_documents_come_in_ascending_order(tmp_path_factory: pytest.TempPathFactory, numbers: set[int]) -> None:
    made = source(tmp_path_factory.mktemp("chosen"), [{"t": f"text {number}"} for number in range(20)], text="t")
    part = chosen_from(made, list(numbers))
    assert [example.text for _, example in numbered(part)] == [f"text {number}" for number in sorted(numbers)]
    assert part.identity() != chosen_from(made, [*(numbers - {min(numbers)}), 20]).identity()


def test_all_words_of_a_conversation_are_its_words(tmp_path: Path) -> None:
    made = source(tmp_path, [{"m": TURNS}], messages="m")
    assert [words_of(example) for _, example in numbered(made)] == ["q\na"]
