"""Whatever a file holds, it is looked at for a moment before a run; documents without an end are refused in it."""

import gzip
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.contract.reading import Found, read_part
from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.data.sources import bytes as in_bytes
from continual.data.sources import csv_text, json_text
from continual.errors import ConfigurationError

MIB = 1 << 20


def source(path: Path, **options: str) -> Source:
    kinds = {".csv": "csv", ".parquet": "parquet", ".txt": "text"}
    kind = next((kind for end, kind in kinds.items() if end in path.suffixes), "jsonl")
    columns = {} if kind == "text" else {"text": "text"}
    found: Source = SOURCES.build({"type": kind, "path": str(path), **columns, **options})
    return found


def packed(path: Path, first: bytes, block: bytes, times: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(first)
        for _ in range(times):
            file.write(block)


def sparse(path: Path, first: bytes, size: int) -> None:
    path.write_bytes(first)
    os.truncate(path, size)


@contextmanager
def quickly() -> Iterator[None]:
    """Less than three seconds of the processor and 600 MiB more memory than before."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begun < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10


BLANK = b"\n" * (8 * MIB)
ENDLESS = {
    "blank lines": ("a.jsonl.gz", lambda path: packed(path, b'{"text": "a"}\n', BLANK, 8), 1),
    "blank rows": ("a.csv.gz", lambda path: packed(path, b"text\na\n", BLANK, 8), 1),
    "a blank array": ("a.json.gz", lambda path: packed(path, b'[{"text": "a"},', b" " * (8 * MIB), 8), 1),
    "an open quote in a table": ("a.csv", lambda path: sparse(path, b'text\na\n"', 1 << 30), 1),
    "an open quote over short lines": ("a.csv.gz", lambda path: packed(path, b'text\na\n"', b"x\n" * (4 * MIB), 8), 1),
    "an open string in an array": ("a.json.gz", lambda path: packed(path, b'[{"text":"', b"x" * (8 * MIB), 32), 0),
    "an open array": ("a.json.gz", lambda path: packed(path, b'[{"text":"a","x":[', b"1," * (4 * MIB), 8), 0),
    "an open line": ("a.jsonl.gz", lambda path: packed(path, b'{"text":"', b"x" * (8 * MIB), 32), 0),
    "one dense line": ("a.jsonl", lambda path: path.write_bytes(b'{"x":[' + b"1," * (16 * MIB)), 0),
    "many small documents": ("a.jsonl.gz", lambda path: packed(path, b"", b'{"text":"a"}\n' * 600_000, 8), 200),
    "a text": ("a.txt.gz", lambda path: packed(path, b"", b"x" * (8 * MIB), 32), 1),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDLESS)
def test_a_look_before_a_run_ends(tmp_path: Path, case: str) -> None:
    name, write, usable = ENDLESS[case]
    write(tmp_path / name)
    made = source(tmp_path / name)
    with quickly():
        first = made.first("data", 200)
        made.count()
    assert len(first.found) == usable
    assert first.whole == (case == "a text"), "what was not looked at is left to the run"


def test_equal_cells_that_take_no_room_in_a_file_are_looked_at_in_part(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["x" * MIB] * 100)}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 4 * MIB
    with quickly():
        first = source(tmp_path / "a.parquet").first("data", 200)
    assert 0 < len(first.found) < 100


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
def test_a_run_reads_on(tmp_path: Path, name: str) -> None:
    """Where the look before it has ended."""
    first, last = (b"text\na\n", b"b\n") if "csv" in name else (b'{"text":"a"}\n', b'{"text":"b"}\n')
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(first + b"\n" * (1 << 19) + last)
    made = source(tmp_path / name)
    assert len(made.first("data", 200).found) == 1
    found = [each for each in read_part(made, str(tmp_path / name), made.selection()) if isinstance(each, Found)]
    assert [each.example.text for each in found if each.example] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", 'text\na\n"' + "x\n" * 600, "line 3: a row has more than"),
        ("a.csv", 'text\na\n"' + "x" * 1200, "line 3: a row has more than"),
        ("a.json", '[{"text":"a"},\n{"text":"' + "x" * 1200, "line 2: an element has more than"),
        ("a.json", '[{"text":"a"},\n' + "[" * 1200, "line 2: an element has more than"),
        ("a.jsonl", '{"text":"a"}\n{"text":"' + "x" * 1200, "line 2 has more than"),
    ],
)
def test_a_document_without_an_end_is_refused_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, words: str
) -> None:
    for module in (in_bytes, csv_text, json_text):
        monkeypatch.setattr(module, "LONGEST", 1000)
    monkeypatch.setattr(json_text, "BLOCK", 64)
    (tmp_path / name).write_text(content)
    made = source(tmp_path / name)
    with pytest.raises(ConfigurationError, match=words):
        list(read_part(made, str(tmp_path / name), made.selection()))


def test_documents_up_to_the_longest_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (in_bytes, csv_text, json_text):
        monkeypatch.setattr(module, "LONGEST", 1000)
    monkeypatch.setattr(json_text, "BLOCK", 64)
    texts = ["x" * 900, "y\n" * 400, "z"]
    (tmp_path / "a.json").write_text(json.dumps([{"text": text} for text in texts] * 4))
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts) * 4)
    for name in ("a.json", "a.csv"):
        made = source(tmp_path / name)
        found = [each for each in read_part(made, str(tmp_path / name), made.selection()) if each]
        assert [each.example.text for each in found if each.example] == texts * 4


def test_many_files_are_counted_by_the_first_ones(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02d}.jsonl").write_bytes(b'{"text":"a"}\n' * 20_000)
    with quickly():
        counted = source(tmp_path).count()
    assert counted is not None
    assert abs(counted - 800_000) < 8_000
