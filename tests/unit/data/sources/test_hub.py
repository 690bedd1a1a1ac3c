"""Local folders under `type: hub`: read without any request, their splits and columns checked before a run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.data.sources.hub import HubSource
from continual.errors import ConfigurationError
from tests.conftest import ROOT
from tests.kits.datasets_cache import ready

ROWS = [{"q": "a", "a": "1"}, {"q": "b", "a": "NA"}, {"q": "c", "a": "null"}]
WITHOUT_NETWORK = """
import socket, sys

def refuse(*arguments, **options):
    print("asked the network", arguments)
    sys.exit(3)

socket.socket.connect = socket.getaddrinfo = refuse
from continual.contract.registry import SOURCES
source = SOURCES.build({"type": "hub", "path": sys.argv[1], "prompt": "q", "completion": "a"})
print(len(source.first("data", 10).found), len([None for part in source.parts() for _ in source.read(part)]))
"""


def source(path: Path, **options: Any) -> Source:
    columns = {} if "messages" in options else {"prompt": "q", "completion": "a"}
    made: Source = SOURCES.build({"type": "hub", "path": str(path), **columns, **options})
    return made


def rows(made: Source) -> list[tuple[str, Any]]:
    return [found for part in made.parts() for found in made.read(part)]


def table(path: Path) -> None:
    path.write_text("q,a\n" + "".join(f"{row['q']},{row['a']}\n" for row in ROWS))


def lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def array(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def parquet(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(path)


@pytest.mark.parametrize(
    ("name", "write", "place"),
    [
        ("train.csv", table, "line 2"),
        ("data/train-00000.jsonl", lines, "line 1"),
        ("train.json", array, "item 1 (line 1)"),
        ("train.parquet", parquet, "row 1"),
    ],
)
def test_files_of_a_folder_are_read_as_their_own_type_reads_them(
    tmp_path: Path, name: str, write: Any, place: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    write(file)
    write(file.with_name(file.name.replace("train", "test")))
    (tmp_path / "README.md").write_text("# A data set")
    assert rows(source(tmp_path))[0] == (f"{file.name} {place}", ROWS[0])
    assert [document for _, document in rows(source(tmp_path, split="test"))] == ROWS
    assert source(tmp_path).count() == 3
    for split in ("trian", "validation"):
        with pytest.raises(ConfigurationError, match=f"data.split: .* has no split `{split}`; "):
            source(tmp_path, split=split).first("data", 10)
    with pytest.raises(ConfigurationError, match=f"data.completion: {file.name} .*no field `b`; .*it has a, q"):
        source(tmp_path, completion="b").first("data", 10)


def test_saved_data_sets_are_read_with_their_splits(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "tool_calls": [{"id": "1"}]}]
    saved = datasets.Dataset.from_list([{**row, "m": turns} for row in ROWS])
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved, "test": saved.select([2])}).save_to_disk(tmp_path / "two")
    assert rows(source(tmp_path / "one")) == [(f"row {n}", row) for n, row in enumerate(ROWS, 1)]
    assert rows(source(tmp_path / "two", split="test")) == [("row 1", ROWS[2])]
    assert rows(source(tmp_path / "one", messages="m"))[0][1] == {"m": turns}
    assert source(tmp_path / "two").count() == 3
    with pytest.raises(ConfigurationError, match=r"has no split `tset`; did you mean `test`\?"):
        source(tmp_path / "two", split="tset").first("data", 10)
    with pytest.raises(ConfigurationError, match=r"data.prompt: row 1: no field `b`; .*it has a, m, q"):
        source(tmp_path / "one", prompt="b").first("data", 10)


def test_an_empty_cell_of_a_hub_folder_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("q,a\nx,1\ny,\n")
    with pytest.raises(ConfigurationError, match=r"data.completion: train.csv line 3: `a` holds an empty cell"):
        source(tmp_path).first("data", 10)
    skipping = source(tmp_path, on_bad="skip").first("data", 10)
    assert (len(skipping.found), len(skipping.skipped)) == (1, 1)


@pytest.mark.parametrize("kind", ["files", "saved"])
def test_a_local_folder_is_read_without_any_request(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    if kind == "files":
        table(tmp_path / "train.csv")
    else:
        datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path)
    command = [sys.executable, "-c", WITHOUT_NETWORK, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.stdout.split() == ["3", "3"], ran.stdout + ran.stderr[-2000:]


A, B = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "ready"))
    for number, (commit, word) in enumerate(((A, "old"), (B, "new"))):
        os.utime(ready(tmp_path / "ready", "me/Toy", commit, [word]), (number, number))
    return tmp_path


def hub(**options: Any) -> HubSource:
    return HubSource(path="me/Toy", text="text", **options).pinned()


def texts(made: Source) -> list[str]:
    return [document["text"] for _, document in rows(made)]


def test_without_the_hub_the_commit_of_the_address_is_read(cache: Path) -> None:
    assert [(texts(made), made.identity()["content"]) for made in (hub(), hub(revision=A), hub(revision=B))] == [
        (["new"], ["me/Toy", None, B]),
        (["old"], ["me/Toy", None, A]),
        (["new"], ["me/Toy", None, B]),
    ]
    refs = cache / "hub" / "datasets--me--Toy" / "refs"
    refs.mkdir(parents=True)
    for name in ("main", "v1"):
        (refs / name).write_text(A)
    assert texts(hub()) == texts(hub(revision="v1")) == ["old"]


@pytest.mark.parametrize("revision", ["c" * 40, "v1"])
def test_without_the_hub_a_commit_that_is_not_ready_is_refused(cache: Path, revision: str) -> None:
    refs = cache / "hub" / "datasets--me--Toy" / "refs"
    refs.mkdir(parents=True)
    (refs / "v1").write_text("c" * 40)
    made = hub(revision=revision)
    words = f"data.path: .*nothing of commit cccccccc of `me/Toy`, only of bbbbbbbb, aaaaaaaa, .*`revision: {B}`"
    with pytest.raises(ConfigurationError, match=words):
        made.first("data", 10)
    with pytest.raises(ConfigurationError, match="nothing of commit cccccccc"):
        made.parts()


def test_where_the_hub_does_not_answer_the_newest_data_are_not_taken_for_others(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` falls back to its cache after a failed request, too, whatever commit was asked for."""
    monkeypatch.setattr("continual.data.sources.hub.offline", lambda: False)
    assert texts(hub(revision=A)) == ["old"]
    with pytest.raises(ConfigurationError, match="nothing of commit cccccccc"):
        hub(revision="c" * 40).parts()


def test_a_subset_that_stands_for_the_default_is_in_the_address(cache: Path) -> None:
    ready(cache / "ready", "me/other", A, ["bonjour"], subset="fr")
    other = HubSource(path="me/other", text="text")
    assert texts(other) == ["bonjour"]
    assert other.identity()["content"] == HubSource(path="me/other", text="text", subset="fr").identity()["content"]
    ready(cache / "ready", "me/other", A, ["hello"], subset="en")
    with pytest.raises(
        ConfigurationError, match=r"data.subset: .* several subsets of `me/other`.*; write one of en, fr"
    ):
        other.first("data", 10)
    assert texts(HubSource(path="me/other", text="text", subset="en")) == ["hello"]
