"""What became of the documents is counted, whatever their order and however the reading was cut into parts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual.contract.example import Example
from continual.contract.source import Document, Source
from continual.data.formats import UNLEARNABLE
from continual.data.prepare import WINDOW, _windows
from continual.data.sources.jsonl import JsonlSource
from continual.data.tally import Pieces, Tally, losses, skipped
from continual.data.tokenize import document_pieces
from continual.errors import ConfigurationError
from tests.kits.sources import tokenized
from tests.unit.data.test_formats import Letters


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.data.tokenize.load_tokenizer", lambda _: Letters())


class Failing(Source):
    """Two documents, and then another library's exception of several lines."""

    def parts(self) -> list[str]:
        return ["shelf"]

    def read(self, part: str) -> Iterator[tuple[str, Document]]:
        yield "book 1", {"text": "a"}
        yield "book 2", {"text": "b"}
        raise OSError("the shelf\nfell down")

    def count(self) -> int:
        return 2

    def identity(self) -> dict[str, Any]:
        return {}


def source(folder: Path, *files: list[Any], **options: Any) -> JsonlSource:
    for number, documents in enumerate(files):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"t": value}) + "\n" for value in documents))
    return JsonlSource(path=str(folder), text="t", **options)


def counted(made: Source, row_tokens: int = 8) -> tuple[dict[str, Any], list[str]]:
    tally = Tally(made)
    texts = []
    for pieces in tally.pieces(tokenized(made, "letters", row_tokens)):
        for ids, outcome in zip(pieces.ids, pieces.outcome, strict=True):
            texts += ["".join(chr(token) for token in ids if token > 1)] if outcome <= 1 else []
    tally.check(row_tokens)
    return tally.facts(), texts


def test_documents_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    facts, texts = counted(source(tmp_path, ["a", None, "much too long", "b"], [3, 4, "c", ["x"]], on_bad="skip"))
    assert texts == ["a", "b", "c"]
    assert {key: facts[key] for key in ("read", "documents", "dropped", "skipped", "left_out")} == {
        "read": 8, "documents": 3, "dropped": 1, "skipped": 4, "left_out": 0,
    }  # fmt: skip
    assert skipped(facts) == [
        "1 skipped: text: `t` holds null, not text (first 0.jsonl line 2)",
        "2 skipped: text: `t` holds a number, not text (first 1.jsonl line 1)",
        "1 skipped: text: `t` holds a list, not text (first 1.jsonl line 4)",
    ]
    assert losses(facts) == "1 dropped, too long, 4 skipped, not usable"


def test_reasons_without_end_are_counted_together(tmp_path: Path) -> None:
    wrong = [f'{{"f{number}": 1}}' for number in range(50)]
    (tmp_path / "x.jsonl").write_text("\n".join([*wrong, '{"t": "a"}', "{", "{", "{"]))
    facts, _ = counted(JsonlSource(path=str(tmp_path), text="t", on_bad="skip"))
    assert [(reason["reason"], reason["count"]) for reason in facts["skipped_for"]] == [
        ("text: no field `t`", 50), ("path: not JSON", 3),
    ]  # fmt: skip


def test_a_limit_counts_documents_that_are_asked_for_over_all_files(tmp_path: Path) -> None:
    files: list[list[Any]] = [["a", "b"], ["c", None], ["d", None]]
    for limit, expected in ((1, "a"), (2, "ab"), (3, "abc"), (5, "abcd")):
        facts, texts = counted(source(tmp_path, *files, limit=limit, on_bad="skip"))
        assert "".join(texts) == expected
        assert facts["read"] == limit
    # What lies behind the limit is not read, and refuses nothing.
    assert counted(source(tmp_path, *files, limit=3))[1] == ["a", "b", "c"]


def test_a_value_behind_the_limit_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"t": "a", "k": n}) + "\n" for n in range(4)))
    made = JsonlSource(path=str(tmp_path), text="t", where={"k": [0, 1, 3]}, limit=2)
    assert len(made.first("data", 10).found) == 2
    assert counted(made)[0]["documents"] == 2


def test_the_first_bad_document_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        counted(source(tmp_path, ["a"], ["b", 7, None]))
    assert (raised.value.key, raised.value.problem) == ("text", "1.jsonl line 2: `t` holds a number, not text")


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_what_cannot_be_read_on_is_refused_in_one_sentence(on_bad: str) -> None:
    failing = Failing(type="failing", text="text", on_bad=on_bad)
    with pytest.raises(ConfigurationError) as raised:
        counted(failing)
    assert raised.value.problem == "shelf cannot be read behind book 2 (OSError: the shelf fell down)"
    with pytest.raises(ConfigurationError, match=r"^data: shelf cannot be read behind book 2"):
        failing.first("data", 10)


def test_a_source_with_nothing_left_is_refused_with_the_counts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        counted(source(tmp_path, ["much too long", "far too long too", None], on_bad="skip"))
    assert "2 dropped, too long, 1 skipped, not usable, rows of 8 tokens" in raised.value.problem
    assert "raise `train.row_tokens`" in raised.value.fix


def test_documents_without_a_position_to_learn_from_are_dropped_and_counted(tmp_path: Path) -> None:
    talks = [
        [{"role": "user", "content": "u"}],
        [],
        [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"m": talk}) + "\n" for talk in talks))
    facts, texts = counted(JsonlSource(path=str(tmp_path), messages="m"), 40)
    assert (facts["documents"], facts["nothing_to_learn"], len(texts)) == (1, 2, 1)
    with pytest.raises(ConfigurationError, match=r"no usable document .*2 with nothing to learn"):
        (tmp_path / "x.jsonl").write_text("".join(json.dumps({"m": talk}) + "\n" for talk in talks[:2]))
        counted(JsonlSource(path=str(tmp_path), messages="m"), 40)


def test_turns_before_those_that_may_be_learned_are_no_answers() -> None:
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}]
    example = Example("messages", messages=turns, learned_from=1)
    [piece] = document_pieces(example, JsonlSource(path="x", messages="m"), Letters(), 40)
    assert piece.outcome == UNLEARNABLE


def test_windows_do_not_depend_on_the_batches() -> None:
    def batches(*sizes: int) -> Iterator[Pieces]:
        number = 0
        for size in sizes:
            numbers = list(range(number, number + size))
            number += size
            yield Pieces(list(numbers), list(numbers), list(numbers))  # type: ignore[arg-type]

    count = 2 * WINDOW + 5
    for sizes in ((count,), (1, WINDOW, count - WINDOW - 1), (0, 5, 2 * WINDOW, 0)):
        windows = [window.outcome for window in _windows(batches(*sizes))]
        assert [len(window) for window in windows] == [WINDOW, WINDOW, 5]
        assert [number for window in windows for number in window] == list(range(count))
