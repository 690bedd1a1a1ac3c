"""Which documents are used: `where`, `split`, `limit`; and what is refused because it never occurs."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.contract.columns import EmptyCell
from continual.contract.registry import SOURCES
from continual.contract.selection import same
from continual.errors import ConfigurationError
from continual.preflight.check_data import check_source
from tests.unit.data.sources.test_files import files, source

ROWS = [{"q": str(n), "a": "x", "split": ("train", "train", "test")[n % 3], "n": n % 2} for n in range(12)]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file with train and test rows."""
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path / "mixed.jsonl"


def taken(made: Any) -> list[int]:
    return [int(found.document["q"]) for found in made.first("data", 100).found]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"where": {"split": "train"}}, [n for n in range(12) if n % 3 < 2]),
        ({"where": {"split": ["train", "test"]}}, list(range(12))),
        ({"where": {"split": "test", "n": 1}}, [5, 11]),
        ({"where": {"n": [0]}}, [0, 2, 4, 6, 8, 10]),
        ({"where": {"n": "0"}}, [0, 2, 4, 6, 8, 10]),
        ({"split": "test"}, [2, 5, 8, 11]),
        ({"split": "test", "limit": 2}, [2, 5]),
        ({"limit": 3}, [0, 1, 2]),
    ],
)
def test_documents_with_the_values_asked_for_are_used(mixed: Path, options: Any, expected: list[int]) -> None:
    assert taken(source(mixed, **options)) == expected


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        ({"where": {"splitt": "train"}}, "data.where", "no document has a field `splitt`"),
        ({"where": {"split": "trian"}}, "data.where", "no document has `trian` in `split`; did you mean `train`"),
        ({"where": {"split": ["train", "dev"]}}, "data.where", "no document has `dev` in `split`; there is test"),
        ({"where": {"n": True}}, "data.where", "no document has `True` in `n`"),
        ({"where": {"q": "2", "split": "train"}}, "data.where", "no document matches `q` and `split` together"),
        ({"split": "nonsense"}, "data.split", "no document has `nonsense` in `split`; there is test, train"),
    ],
)  # fmt: skip
def test_what_never_occurs_is_refused(mixed: Path, options: Any, key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        source(mixed, **options).first("data", 100)
    assert raised.value.key == key
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["train.jsonl", "test.jsonl"], "train", ["train.jsonl"]),
        (["train/a.jsonl", "test/a.jsonl", "train/b.jsonl"], "train", ["train/a.jsonl", "train/b.jsonl"]),
        (["x_train.jsonl", "x_dev.jsonl"], "validation", ["x_dev.jsonl"]),
        (["train-00000-of-00002.json", "train-00001-of-00002.json", "valid-0.json"], "train",
         ["train-00000-of-00002.json", "train-00001-of-00002.json"]),
        (["en/test.jsonl", "de/test.jsonl", "de/train.jsonl"], "test", ["de/test.jsonl", "en/test.jsonl"]),
        (["data/part.jsonl", "odd/part.jsonl"], "odd", ["odd/part.jsonl"]),
        (["easy.jsonl", "hard.jsonl"], "easy", ["easy.jsonl"]),
        (["easy-00000-of-00002.jsonl.gz", "Easy_1.json", "easygoing.jsonl"], "easy",
         ["Easy_1.json", "easy-00000-of-00002.jsonl.gz"]),
        (["dev.jsonl", "validation.jsonl", "train.jsonl"], "validation", ["validation.jsonl"]),
        (["dev.jsonl", "validation.jsonl", "train.jsonl"], "dev", ["dev.jsonl"]),
        (["dev/a.jsonl", "eval/a.jsonl"], "eval", ["eval/a.jsonl"]),
        (["valid.jsonl", "train.jsonl"], "dev", ["valid.jsonl"]),
        (["train/test_cases.jsonl", "test/train_like.jsonl"], "train", ["train/test_cases.jsonl"]),
        (["train/test_cases.jsonl", "test/train_like.jsonl"], "test", ["test/train_like.jsonl"]),
        (["split=test/train_0.jsonl", "split=train/0.jsonl"], "train", ["split=train/0.jsonl"]),
        (["mmlu-eval/train.jsonl", "mmlu-eval/test.jsonl"], "train", ["mmlu-eval/train.jsonl"]),
    ],
)  # fmt: skip
def test_names_of_files_and_folders_say_the_split(
    tmp_path: Path, names: list[str], split: str, expected: list[str]
) -> None:
    made = source(files(tmp_path, *names), split=split)
    assert [str(Path(part).relative_to(tmp_path)) for part in made.parts()] == expected
    assert made.first("data", 10).found


def test_a_column_chooses_within_the_files_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[2]))
    assert taken(source(tmp_path, split="train")) == [n for n in range(12) if n % 3 < 2]


@pytest.mark.parametrize("names", [["a.jsonl"], ["train.jsonl", "test.jsonl"], ["training.data.jsonl"]])
def test_a_split_that_is_nowhere_is_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"data.split: neither a column `split` nor the name .* `nonsense`"):
        source(files(tmp_path, *names), split="nonsense").first("data", 10)


def test_a_folder_decides_against_the_names_of_its_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data.split: .*no.* has the split `train`; there is test"):
        source(files(tmp_path, "test/train_like.jsonl"), split="train").first("data", 10)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("", "no document has an empty text in `n`; write `null`: an empty cell of a table is a missing value"),
        ("v", "no document has `v` in `n`; there is an empty cell, k"),
    ],
)
def test_a_missing_value_reads_well(tmp_path: Path, wanted: str, words: str) -> None:
    (tmp_path / "x.csv").write_text("q,n\nx,\nz,k\n")
    made = SOURCES.build({"type": "csv", "path": str(tmp_path / "x.csv"), "text": "q", "where": {"n": wanted}})
    with pytest.raises(ConfigurationError) as raised:
        made.first("data", 10)
    assert words in str(raised.value)


def test_a_folder_above_the_data_says_no_split(tmp_path: Path) -> None:
    folder = files(tmp_path, "train/sets/a.jsonl") / "train" / "sets"
    with pytest.raises(ConfigurationError, match=r"^data\.split"):
        source(folder, split="train").first("data", 10)


def test_files_of_several_splits_are_noted_where_none_is_chosen(tmp_path: Path) -> None:
    files(tmp_path, "train.jsonl", "sub/test.jsonl", "validation-0.jsonl")
    [note] = source(tmp_path).notes()
    assert "files of the splits test, train, validation, and all are used" in note
    assert source(tmp_path, split="train").notes() == []
    assert source(tmp_path / "train.jsonl").notes() == []


def test_alpacas_input_that_is_not_used_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "Add.", "input": "", "output": "3"}]))
    columns = {"prompt": "instruction", "completion": "output"}
    assert check_source("data", source(tmp_path / "a.json", **columns), None) == []
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "Add.", "input": "1 2", "output": "3"}]))
    [note] = check_source("data", source(tmp_path / "a.json", **columns), None)
    assert "`input` is filled and not used" in note
    whole = {"prompt": "{instruction}\n\n{input}", "completion": "output"}
    assert check_source("data", source(tmp_path / "a.json", **whole), None) == []


def test_a_column_with_splits_is_noted_where_nothing_asks_for_one(mixed: Path) -> None:
    [note] = check_source("data", source(mixed), None)
    assert "a column `split` (test, train), and all rows are used" in note
    options: list[dict[str, Any]] = [{"split": "test"}, {"where": {"split": "train"}}]
    for chosen in options:
        assert check_source("data", source(mixed, **chosen), None) == []


def test_a_system_column_beside_a_conversation_is_noted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "x.json").write_text(json.dumps([{"m": turns, "system": "Be kind."}]))
    [note] = check_source("data", source(tmp_path / "x.json", messages="m"), True)
    assert "`system` is filled and not used" in note


def test_what_is_asked_for_may_stand_behind_many_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.contract.source.MOST_LOOKED_AT", 50)
    rows = [{"q": str(n), "a": "x", "k": n} for n in range(100)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert taken(source(tmp_path / "x.jsonl", where={"k": [7, 40]})) == [7, 40]
    [note] = check_source("data", source(tmp_path / "x.jsonl", where={"k": 90}), None)
    assert "none of the first 50 documents is asked for; the run reads all" in note


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("a", "a", True), ("a", "b", False), (1, 1, True), (1, 1.0, True), (1, "1", True), ("1", 1, True),
        (1, True, False), (True, True, True), (True, 1, False),
        (True, "true", True), ("true", True, True),
        (None, None, True), (None, EmptyCell(), True), (None, "", False), ("", EmptyCell(), False), ("a", ["a"], False),
        ("a", None, False),
    ],
)  # fmt: skip
def test_values_of_a_yaml_are_compared_with_those_of_any_file(wanted: Any, value: Any, expected: bool) -> None:
    assert same(wanted, value) == expected
