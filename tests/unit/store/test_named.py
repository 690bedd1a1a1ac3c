"""What a text names among files: data that decides a result is found in every way in which code is told of it."""

import os
from pathlib import Path

import pytest

from continual.data.sources.python import PythonSource
from continual.store import code, digest
from continual.store.named import named_paths


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, with code in a package whose folder holds data of its own."""
    for name in ("data/train.jsonl", "data/test.jsonl", "data/train-00.txt", "a.jsonl", "b c.jsonl", "own/part.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "own" / "rows.py").write_text("def rows(**arguments): yield {}\n")
    (tmp_path / "sort.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWN_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("a.jsonl,b c.jsonl", ["a.jsonl", "b c.jsonl"]),
        ("a.jsonl, data/test.jsonl, none.jsonl", ["a.jsonl", "data/test.jsonl"]),
        ("data/{split}.jsonl", ["data/test.jsonl", "data/train.jsonl"]),
        ("data/train-{part:02d}.txt,data/tes?.jsonl", ["data/train-00.txt", "data/test.jsonl"]),
        ("data/%s.jsonl", ["data/test.jsonl", "data/train.jsonl"]),
        ("{folder}/train.jsonl", ["data/train.jsonl"]),
        ("data/*.jsonl", ["data/test.jsonl", "data/train.jsonl"]),
        ("data/train", ["data/train.jsonl"]),
        ("$OWN_DATA/test", ["data/test.jsonl"]),
        ("part", ["own/part.csv"]),
        ("part.csv", ["own/part.csv"]),
        ("../data/test.jsonl", ["data/test.jsonl"]),
        ("file:HERE/b%20c.jsonl", ["b c.jsonl"]),
        ("file://HERE/a.jsonl", ["a.jsonl"]),
        ("file://localhostHERE/a.jsonl", ["a.jsonl"]),
        ("sqlite:///data/test.jsonl", ["data/test.jsonl"]),
        ("sqlite+pysqlite:///HERE/a.jsonl?mode=ro", ["a.jsonl"]),
    ],
)
def test_every_way_to_name_files(folder: Path, text: str, files: list[str]) -> None:
    found = named_paths("k", text.replace("HERE", str(folder)), folder / "own")
    assert [path.resolve() for path in found] == [folder / name for name in files]


@pytest.mark.parametrize("text", ["", "/", "{prompt}", "{a}\n{b}", "%s", "sort", "reversal", ",", "a\0b", "x" * 5000])
def test_texts_that_name_nothing(folder: Path, text: str) -> None:
    assert named_paths("k", text, folder / "own") == []


@pytest.mark.parametrize("text", ["a.jsonl,b c.jsonl", "data/{split}.jsonl", "data/train", "part.csv"])
def test_a_byte_of_each_changes_the_address_of_a_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    source = PythonSource(function="own.rows:rows", arguments={"files": [text]})
    for file in named_paths("k", text, folder / "own"):
        before, content = digest(source.identity()), file.read_text()
        file.write_text(f"{content[:-1]}#")
        assert digest(source.identity()) != before
        file.write_text(content)
        os.utime(file, (1, 1))
        assert digest(source.identity()) == before


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    data, far = tmp_path / "data", tmp_path / "far"
    data.mkdir()
    (far / "deep").mkdir(parents=True)
    (far / "deep" / "words.txt").write_text("one")
    (data / "more").symlink_to(far)
    (far / "back").symlink_to(data)
    (far / "self").symlink_to(far)
    (data / "again").symlink_to(far / "deep")
    (data / "broken").symlink_to(tmp_path / "nothing")
    before = code.content("k", data)
    (far / "deep" / "words.txt").write_text("two")
    assert code.content("k", data) != before
    assert [path.name for path in code._files(data)] == ["words.txt"]


def test_linked_folders_count_against_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    for number in range(3):
        (tmp_path / "far" / f"{number}.txt").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "more").symlink_to(tmp_path / "far")
    monkeypatch.setattr(code, "MOST_FILES", 2)
    with pytest.raises(code.ConfigurationError, match="more than 2 files"):
        code.content("k", tmp_path / "data")
