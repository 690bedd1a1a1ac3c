"""Which files are read, what they hold, and where a document stands, for every kind of file."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.data.sources import json_text
from continual.errors import ConfigurationError

LINES = b'{"q": "a", "a": "1"}\n{"q": "b", "a": "2"}\n'


def source(path: Path | str, kind: str = "jsonl", **options: Any) -> Source:
    columns = {} if kind == "text" or {"text", "messages"} & set(options) else {"prompt": "q", "completion": "a"}
    made: Source = SOURCES.build({"type": kind, "path": str(path), **columns, **options})
    return made


def read(made: Source) -> list[tuple[str, Any]]:
    return [found for part in made.parts() for found in made.read(part)]


def good(made: Source) -> list[Any]:
    return [dict(document) for _, document in read(made)]


def bad(made: Source) -> list[str]:
    return [f"{place}: {document}" for place, document in read(made) if isinstance(document, ConfigurationError)]


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(LINES)
    return folder


def named(made: Any) -> list[str]:
    return [str(file.relative_to(Path(made.path))) if Path(made.path).is_dir() else file.name for file in made.files()]


def test_of_a_folder_only_files_of_the_type_are_read_and_the_plan_says_what_is_not(tmp_path: Path) -> None:
    files(
        tmp_path, "a.jsonl", "deep/b.JSON", "deep/c.ndjson.GZ", ".cache/huggingface/a.jsonl.metadata", ".cache/x.jsonl",
        ".git/HEAD", "README.md", "readme.json", "dataset_infos.json", "_SUCCESS", "notes.txt", ".hidden.jsonl",
    )  # fmt: skip
    made = source(tmp_path)
    assert named(made) == ["a.jsonl", "deep/b.JSON", "deep/c.ndjson.GZ"]
    [note] = made.notes()
    assert "README.md" in note
    assert "2 more" in note
    assert ".cache" not in note
    assert source(tmp_path / "a.jsonl").notes() == []


def test_text_of_a_git_clone_is_text_alone(tmp_path: Path) -> None:
    files(tmp_path, ".git/HEAD", ".gitattributes", "LICENSE.txt", "a.txt", "b.TXT.zst", "c.py", "README")
    assert named(source(tmp_path, "text")) == ["a.txt", "b.TXT.zst"]


def test_links_to_folders_are_followed_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    files(tmp_path, "real/a.jsonl", "real/deep/b.jsonl", "real/.hidden/c.jsonl", "data/d.jsonl", "data/sub/e.jsonl")
    data = tmp_path / "data"
    for name, target in {
        "linked": "../real", "again": "../real", "loop": ".", "sub/up": "..", "other": "sub", "gone": "nowhere",
    }.items():  # fmt: skip
        (data / name).symlink_to(target)
    (tmp_path / "real" / "back").symlink_to("../data")
    found = named(source(data))
    assert [Path(name).name for name in sorted(found, key=lambda name: Path(name).name)] == [
        "a.jsonl", "b.jsonl", "d.jsonl", "e.jsonl",
    ]  # fmt: skip
    assert {"d.jsonl", "sub/e.jsonl"} < set(found)
    (tmp_path / "link").symlink_to("real")
    assert len(source(tmp_path / "link").files()) == 4


def test_globs_are_pythons(tmp_path: Path) -> None:
    files(tmp_path, "x.jsonl", "one/x.jsonl", "two/x.jsonl", "two/deep/y.jsonl", "two/x.csv", "a/odd.dat")
    for pattern, expected in {
        "*/x.jsonl": ["one/x.jsonl", "two/x.jsonl"],
        "**/*.jsonl": ["one/x.jsonl", "two/deep/y.jsonl", "two/x.jsonl", "x.jsonl"],
        "two/*": ["two/x.jsonl"],
        "[ot]*/x.json?": ["one/x.jsonl", "two/x.jsonl"],
        "*/*.dat": ["a/odd.dat"],
    }.items():
        found = [str(file.relative_to(tmp_path)) for file in source(tmp_path / pattern).files()]
        assert found == expected, pattern


def test_one_named_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    files(tmp_path, "README.md", ".hidden", "a[1].data")
    for name in ("README.md", ".hidden", "a[1].data"):
        assert good(source(tmp_path / name)) == [{"q": "a", "a": "1"}, {"q": "b", "a": "2"}]


def test_a_folder_without_files_of_the_type_says_what_it_has(tmp_path: Path) -> None:
    files(tmp_path, "a.csv")
    with pytest.raises(ConfigurationError, match=r"no files that end in .parquet or .pq \(there is a.csv\)"):
        source(tmp_path, "parquet").parts()


@pytest.mark.parametrize(
    "packed", [gzip.compress, bz2.compress, lzma.compress, lambda data: pa.compress(data, "zstd", asbytes=True)]
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.JSONL.GZ"])
def test_contents_tell_the_compression(tmp_path: Path, packed: Callable[[bytes], bytes], name: str) -> None:
    (tmp_path / name).write_bytes(packed(LINES))
    assert [document["q"] for document in good(source(tmp_path / name))] == ["a", "b"]
    (tmp_path / "t.txt").write_bytes(packed("Grüße".encode()))
    assert good(source(tmp_path / "t.txt", "text")) == [{"text": "Grüße"}]
    (tmp_path / "t.csv").write_bytes(packed(b"q,a\nx,1\n"))
    assert good(source(tmp_path / "t.csv", "csv")) == [{"q": "x", "a": "1"}]


def test_archives_of_several_members_are_read_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(LINES) + gzip.compress(LINES))
    assert len(good(source(tmp_path / "x.jsonl.gz"))) == 4


def test_a_damaged_archive_ends_with_its_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(LINES * 50_000)[:-200])
    with pytest.raises(ConfigurationError, match=r"data.path: .*x.jsonl.gz cannot be read behind x.jsonl.gz line \d+"):
        source(tmp_path / "x.jsonl.gz").first("data", 1_000_000)


@pytest.mark.parametrize(("kind", "content"), [
    ("jsonl", LINES), ("jsonl", b"[" + LINES.replace(b"\n", b",", 1) + b"]"), ("csv", b"q,a\na,1\nb,2\n"),
])  # fmt: skip
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, kind: str, content: bytes) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + content)
    assert good(source(tmp_path / "x", kind)) == [{"q": "a", "a": "1"}, {"q": "b", "a": "2"}]
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfhi")
    assert good(source(tmp_path / "t", "text")) == [{"text": "hi"}]


def test_a_broken_line_is_named_and_does_not_end_the_others(tmp_path: Path) -> None:
    lines = [
        b'{"q": 1}',
        b"",
        b'{"q": ',
        b"[1]",
        b"\xff{}",
        b'{"q": 2}',
        b"3",
        b"{'q': 1}",
        b"[" * 100_000,
        b"1" * 5000,
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\r\n".join(lines))
    made = source(tmp_path / "x.jsonl")
    assert [document for _, document in read(made) if isinstance(document, dict)] == [{"q": 1}, {"q": 2}]
    broken = bad(made)
    assert [problem.split(": ")[0] for problem in broken] == [f"x.jsonl line {n}" for n in (3, 4, 5, 7, 8, 9, 10)]
    words = (
        "not JSON (Expecting value",
        "a list, not an object",
        "not UTF-8 text (byte 1)",
        "a number, not",
        "not JSON",
    )
    for word, problem in zip(words, broken, strict=False):
        assert word in problem
    assert not any("not JSON" in problem for problem in broken[5:])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda of: st.lists(of) | st.dictionaries(st.text(), of),
)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.integers(1, 40),
)
def test_an_array_is_read_as_json_reads_it_whatever_is_read_at_a_time(
    documents: list[Any], indent: int | None, ascii_only: bool, block: int
) -> None:
    text = json.dumps(documents, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "BLOCK", block)
        import io

        try:
            data = io.BufferedReader(io.BytesIO(text.encode()))
        except UnicodeEncodeError:
            return
        found = list(json_text.json_documents(data))
    assert json.dumps([document for _, document in found]) == json.dumps(json.loads(text))
    for place, document in found:
        line = int(place.rpartition("line ")[2].rstrip(")"))
        begun = text.split("\n")[line - 1] if indent is not None else text
        assert "{" in begun, (place, document)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"q": "a"},\n {"q": }]', "line 2: the array is broken"),
        ('[{"q": "a"},\n {"q": "b"}', "line 2: the array is broken"),
        ('[{"q": "a"}\n {"q": "b"}]', "line 2: the array is broken"),
        ('[{"q": "a"}]\n[{"q": "b"}]', "line 2: text behind the array"),
        ("[", "the array is broken"),
    ],
)
def test_a_broken_array_is_refused_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        read(source(tmp_path / "x.json"))


def test_elements_that_are_no_objects_are_bad_documents(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"q": "a"}, 3, null]')
    assert [problem.split(": ")[0] for problem in bad(source(tmp_path / "x.json"))] == [
        "x.json item 2 (line 1)", "x.json item 3 (line 1)",
    ]  # fmt: skip


def test_cells_are_text_and_rows_have_lines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'q,a\n1,NA\n"two\nlines",null\n\n,"say ""hi"""\nx\ny,"a"b\nz,1,2\nlast,1\n')
    found = read(source(tmp_path / "x.csv", "csv"))
    assert [place for place, _ in found] == [f"x.csv line {n}" for n in (2, 3, 6, 7, 8, 9, 10)]
    documents = [document for _, document in found if isinstance(document, dict)]
    assert documents == [
        {"q": "1", "a": "NA"}, {"q": "two\nlines", "a": "null"}, {"q": "", "a": 'say "hi"'}, {"q": "last", "a": "1"},
    ]  # fmt: skip
    one, quote, three = bad(source(tmp_path / "x.csv", "csv"))
    assert "1 cells, and 2 columns" in one
    assert "not a valid table row" in quote
    assert "3 cells" in three


def test_options_of_tables(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('q\ta\n"x\t1\n')
    assert good(source(tmp_path / "x.tsv", "csv", quoted=False)) == [{"q": '"x', "a": "1"}]
    (tmp_path / "y.csv").write_text("x;1\ny;2\n")
    made = source(tmp_path / "y.csv", "csv", delimiter=";", header=["q", "a"])
    assert good(made) == [{"q": "x", "a": "1"}, {"q": "y", "a": "2"}]
    (tmp_path / "z.csv").write_text("q,q\n1,2\n")
    with pytest.raises(ConfigurationError, match="the header has the column `q` twice"):
        read(source(tmp_path / "z.csv", "csv"))
    (tmp_path / "semicolon.csv").write_text("q;a\n1;2\n")
    with pytest.raises(ConfigurationError, match=r"^delimiter: the header has one column alone, .q;a.; set"):
        read(source(tmp_path / "semicolon.csv", "csv"))
    (tmp_path / "long.csv").write_text("q,a\n" + "x" * 300_000 + ",1\n")
    assert len(good(source(tmp_path / "long.csv", "csv"))[0]["q"]) == 300_000


def test_bytes_that_are_not_utf_8_are_found_where_they_matter(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"q,a,b\nx,1,\xe9\ny,\xe9,2\n")
    made = source(tmp_path / "x.csv", "csv")
    with pytest.raises(ConfigurationError, match=r"data.completion: x.csv line 3: `a` is not UTF-8 text"):
        made.first("data", 10)
    (tmp_path / "t.txt").write_bytes(b"one\ntwo\n\xe9")
    with pytest.raises(ConfigurationError, match=r"data.path: t.txt line 3: not UTF-8 text; save the file as UTF-8"):
        source(tmp_path / "t.txt", "text").first("data", 10)


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_tables_in_utf_16_are_refused_with_what_to_do(tmp_path: Path, codec: str, name: str) -> None:
    (tmp_path / name).write_bytes("q,a\nx,1\n".replace(",", "," if name == "x.csv" else "\t").encode(codec))
    with pytest.raises(ConfigurationError, match=r"data.path: line 1: .*; save the file as UTF-8"):
        source(tmp_path / name, "csv").first("data", 10)


def test_a_cell_with_a_nul_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"q,a\nx\0x,1\ny,2\n")
    made = source(tmp_path / "x.csv", "csv")
    assert [document for _, document in read(made) if isinstance(document, dict)] == [{"q": "y", "a": "2"}]
    with pytest.raises(ConfigurationError, match=r"data.path: x.csv line 2: a cell has a NUL"):
        made.first("data", 10)


def test_blanks_around_the_name_of_a_column_are_shown(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("q, a\nx, y\n")
    with pytest.raises(ConfigurationError, match=r'no field `a`, but " a" with blanks; write it so in the YAML'):
        source(tmp_path / "x.csv", "csv").first("data", 10)
    [found] = source(tmp_path / "x.csv", "csv", prompt="q", completion=" a").first("data", 10).found
    assert found.example is not None
    assert found.example.completion == " y"


def test_a_column_of_parquet_that_is_there_twice_is_refused_if_it_is_asked_for(tmp_path: Path) -> None:
    columns = [pa.array([text]) for text in "1234"]
    pq.write_table(pa.table(columns, names=["q", "q", "a", "z"]), tmp_path / "x.parquet")
    with pytest.raises(ConfigurationError, match=r"data.path: x.parquet has the column `q` twice; rename one"):
        source(tmp_path / "x.parquet", "parquet").first("data", 10)
    pq.write_table(pa.table(columns, names=["q", "a", "z", "z"]), tmp_path / "y.parquet")
    assert good(source(tmp_path / "y.parquet", "parquet")) == [{"q": "1", "a": "2"}]


def test_maps_of_parquet_are_mappings(tmp_path: Path) -> None:
    turns = [[("role", "user"), ("content", "hi")], [("role", "assistant"), ("content", "yo")]]
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"m": pa.array([turns], kind)}), tmp_path / "x.parquet")
    made = source(tmp_path / "x.parquet", "parquet", messages="m")
    assert good(made) == [{"m": [dict(turn) for turn in turns]}]
    [found] = made.first("data", 1).found
    assert found.example is not None
    assert found.example.messages == [dict(turn) for turn in turns]


def test_structs_of_parquet_are_nested_values_without_the_keys_they_lack(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "tool_calls": [{"id": "1"}]}]
    pq.write_table(pa.Table.from_pylist([{"m": turns, "image": b"\x89"}]), tmp_path / "x.parquet")
    made = source(tmp_path / "x.parquet", "parquet", messages="m")
    assert read(made) == [("x.parquet row 1", {"m": turns})]
    wrong = source(tmp_path / "x.parquet", "parquet", messages="messages")
    with pytest.raises(ConfigurationError, match=r"no field `messages`; .*it has image, m"):
        wrong.first("data", 1)
    with pytest.raises(ConfigurationError, match="is not a parquet file"):
        read(source(files(tmp_path, "y.parquet") / "y.parquet", "parquet"))


def test_an_array_that_is_broken_early_is_not_read_to_its_end(tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            made = super().read(size)
            self.read_bytes += len(made)
            return made

        read1 = read

        def peek(self, size: int = 0) -> bytes:
            return self.getbuffer()[:size].tobytes()

    rest = b",".join(b'{"a": "%d"}' % number for number in range(600_000))
    file = Counted(b'[{"a": "one"}, {"a" "two"}, ' + rest + b"]")
    made = []
    with pytest.raises(ConfigurationError, match="line 1: the array is broken"):
        made += [document for _, document in json_text.json_documents(file)]
    assert len(rest) > 8e6
    assert file.read_bytes < 3e6


def test_what_tools_leave_in_hidden_folders_does_not_change_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"a": "one"}')
    source: Source = SOURCES.build({"type": "hub", "path": str(tmp_path), "text": "a"})
    before = source.identity()
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "train.jsonl.metadata").write_text("fetched today")
    assert source.identity() == before
    (tmp_path / "train.jsonl").write_text('{"a": "two"}')
    assert source.identity() != before
