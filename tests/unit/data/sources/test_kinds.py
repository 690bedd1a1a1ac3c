"""The kinds of source: what they refuse, what identifies them, and that naming one costs no heavy import."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.data.sources.jsonl import JsonlSource
from continual.data.sources.python import PythonSource
from continual.data.sources.text import TextSource
from tests.conftest import ROOT

HEAVY = {"torch", "ray", "datasets", "pyarrow", "transformers", "numpy"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "a"}, "a data source is a mapping with a `type`"),
        ({"type": "jsnl", "path": "a"}, "did you mean `jsonl`?"),
        ({"type": "jsonl", "path": "a"}, "name the column"),
        ({"type": "hub", "path": "a"}, "name the column"),
        ({"type": "parquet", "path": "a", "text": "t", "messages": "m"}, "choose one format"),
        ({"type": "jsonl", "path": "a", "prompt": "p"}, "go together"),
        ({"type": "python", "function": "function"}, 'write "module:function"'),
    ],
)
def test_what_cannot_be_a_source_is_refused(source: dict[str, Any], words: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=words):
        SOURCES.build(source)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("jsonl", {"path", "split"}),
        ("parquet", {"path", "split"}),
        ("text", {"path", "split"}),
        ("csv", {"path", "split", "delimiter", "header", "quoted"}),
        ("hub", {"path", "split", "subset", "revision"}),
        ("python", {"function", "arguments", "version"}),
    ],
)
def test_a_kind_has_no_options_of_another_kind(kind: str, expected: set[str]) -> None:
    assert set(SOURCES.load(kind).model_fields) - set(Source.model_fields) == expected


def test_naming_a_source_imports_nothing_heavy() -> None:
    script = (
        "import sys; from continual.contract.registry import SOURCES\n"
        "[SOURCES.load(name) for name in SOURCES.names()]\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"


def test_only_text_is_cut_by_default() -> None:
    assert TextSource(path="a").cuts
    assert not TextSource(path="a", overlong="drop").cuts
    assert not JsonlSource(path="a", text="t").cuts
    assert JsonlSource(path="a", text="t", overlong="cut").cuts


def test_content_identifies_files_and_the_path_does_not(tmp_path: Path) -> None:
    for name, line in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"t": line}))
    first, same, other = (JsonlSource(path=str(tmp_path / f"{name}.jsonl"), text="t").identity() for name in "abc")
    assert first == same
    assert first != other


def test_options_identify_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"t": "one"}\n')
    base = JsonlSource(path=str(tmp_path / "a.jsonl"), text="t")
    changes: list[dict[str, Any]] = [{"limit": 3}, {"overlong": "cut"}, {"end_token": False}, {"text": "u"}]
    identities = [base.model_copy(update=change).identity() for change in ({}, *changes)]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 5


def test_a_function_is_identified_by_its_module_and_arguments() -> None:
    source = PythonSource(function="tests.local.data.mixed_rows:rows")
    assert len(source.identity()["module"]) == 64
    assert source.identity() != source.model_copy(update={"arguments": {"n": 1}}).identity()


def test_files_are_those_of_a_folder_or_a_glob_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden", "c.md"):
        (tmp_path / name).write_text("w")
    assert [path.name for path in TextSource(path=str(tmp_path)).files()] == ["a.txt", "b.txt"]
    assert [path.name for path in TextSource(path=str(tmp_path / "*.txt")).files()] == ["a.txt", "b.txt"]
    assert TextSource(path=str(tmp_path / "none")).files() == []
