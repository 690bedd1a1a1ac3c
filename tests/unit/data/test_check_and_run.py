"""Whatever the check accepts, the run trains as described; what it refuses, it refuses before the start.

Documents of all kinds are written to real files, and read by what reads a user's.
"""

import csv
import json
import math
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.data.formats import CUT, WHOLE
from continual.data.tally import Tally
from continual.errors import ConfigurationError
from continual.preflight.check_data import check_source
from tests.kits.sources import tokenized
from tests.unit.data.test_formats import Letters

ROW_TOKENS = 400
UNLEARNABLE = ("", "nothing")
YIELDED: list[Any] = []

ANSWER = {"role": "assistant", "content": "ma"}
TURNS = [{"role": "user", "content": "mu"}, ANSWER]
SHARED = [{"from": "human", "value": "mu"}, {"from": "gpt", "value": "ma"}]
TEXTS = st.text(alphabet=string.ascii_letters + " {},é\n", min_size=1, max_size=6)
BROKEN = [None, 3, 0.5, True, ["x", "y"], {"x": 1}, float("nan"), [], TURNS, SHARED, TURNS[:1], json.dumps(TURNS)]
DOCUMENTS = st.lists(
    st.dictionaries(st.sampled_from(["q", "a", "m", "k"]), TEXTS | TEXTS | TEXTS | st.sampled_from(BROKEN), min_size=2),
    min_size=1, max_size=6,
)  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {"text": "a"}, {"text": "{q}"}, {"prompt": "q", "completion": "a"}, {"prompt": "{q}: {a}\n", "completion": "a"},
    {"messages": "m"}, {"messages": "a"},
]  # fmt: skip
FURTHER: list[dict[str, Any]] = [{}, {"limit": 2}, {"where": {"k": "x"}}, {"where": {"k": ["x", 3, None]}}]


def rows() -> Iterator[Any]:
    yield from YIELDED


def text_of(value: Any, number: bool = False) -> str | None:
    """The text of a value, None if it is none; by naive code."""
    if isinstance(value, str):
        return value
    allowed = number and type(value) in (int, float) and math.isfinite(value)
    return str(value) if allowed else None


def conversation(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    if value in (TURNS, SHARED):
        return TURNS
    return value if value in ([], TURNS[:1]) else None


def expected(document: dict[str, Any], options: dict[str, Any]) -> tuple[str, str] | None:
    """The whole text of a document and the part of it that is learned; None if it cannot be used.

    Of a conversation without an answer nothing is learned, so that it is UNLEARNABLE.
    """
    if "messages" in options:
        turns = conversation(document.get(options["messages"], 0))
        if turns is None:
            return None
        whole = Letters().apply_chat_template(turns)
        return (whole, "ma$") if ANSWER in turns else UNLEARNABLE
    if "prompt" in options and all(_turns(document.get(options[key])) for key in ("prompt", "completion")):
        before, after = (conversation(document[options[key]]) for key in ("prompt", "completion"))
        whole = Letters().apply_chat_template([*(before or []), *(after or [])])
        return (whole, "ma$") if ANSWER in (after or []) else UNLEARNABLE
    parts = []
    for option in ("text", "prompt", "completion"):
        if option not in options:
            continue
        written, names = options[option], [name for name in "qamk" if f"{{{name}}}" in options[option]]
        if not names:
            parts.append(text_of(document.get(written)) if document.get(written) is not None else None)
            continue
        values = {name: text_of(document.get(name), number=True) for name in names}
        parts.append(None if None in values.values() else written.format(**values))
    if None in parts:
        return None
    texts = [part for part in parts if part is not None]
    return "".join(texts), texts[-1]


def _turns(value: Any) -> bool:
    """Whether a value is turns, or JSON text of turns."""
    if isinstance(value, str) and value != json.dumps(TURNS):
        return False
    return conversation(value) in (TURNS, TURNS[:1])


def asked_for(document: dict[str, Any], where: dict[str, Any]) -> bool:
    if not where:
        return True
    wanted = where["k"] if isinstance(where["k"], list) else [where["k"]]
    value = document.get("k", "missing")
    return any(
        value is None if want is None else type(value) in (str, int) and str(value) == str(want) for want in wanted
    )


def outcome(source: Source) -> tuple[str, list[tuple[str, str]], dict[str, Any]]:
    """What the run makes of a source: the refusal or "", whole and learned texts, and the counts."""
    tally, made = Tally(source), []
    try:
        for pieces in tally.pieces(tokenized(source, "letters", ROW_TOKENS)):
            for ids, weights, result in zip(pieces.ids, pieces.weights, pieces.outcome, strict=True):
                if result in (WHOLE, CUT):
                    shown = [chr(token) if token > 1 else "" for token in ids]
                    learned = "".join(letter for letter, weight in zip(shown, weights, strict=True) if weight > 0)
                    made.append(("".join(shown), learned))
        tally.check(ROW_TOKENS)
    except ConfigurationError as error:
        return str(error), made, tally.facts()
    return "", made, tally.facts()


def check_against_run(source: Source, documents: list[dict[str, Any]], options: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("continual.data.tokenize.load_tokenizer", lambda _: Letters())
        refusal, made, counts = outcome(source)
    wanted = [document for document in documents if asked_for(document, source.where)]
    used = wanted[: source.limit]
    texts = [expected(document, options) for document in used]
    learned = [text for text in texts if text not in (None, UNLEARNABLE)]
    try:
        check_source("data", source, chat_template=True)
        checked = ""
    except ConfigurationError as error:
        checked = str(error)
    if None in texts and source.on_bad == "refuse":
        assert checked == f"data.{refusal}", "both name the same document"
        return
    if checked:
        assert refusal, f"the check refuses what the run trains: {checked}"
    if refusal:
        assert checked, f"the run refuses what the check accepts: {refusal}"
        return
    assert made == learned
    assert counts["read"] == len(used)
    assert counts["skipped"] == texts.count(None)
    assert counts["documents"] == len(learned)
    assert counts["nothing_to_learn"] + counts["empty"] == len(texts) - texts.count(None) - len(learned)
    if source.limit is None:
        assert counts["left_out"] == len(documents) - len(wanted)


def built(kind: str, path: Path, options: dict[str, Any], further: dict[str, Any], on_bad: str) -> Source:
    places = {"function": f"{__name__}:rows"} if kind == "python" else {"path": str(path)}
    made: Source = SOURCES.build({"type": kind, **places, **options, **further, "on_bad": on_bad})
    return made


@given(
    st.sampled_from(["jsonl", "array", "python", "hub"]), DOCUMENTS, st.sampled_from(OPTIONS), st.sampled_from(FURTHER),
    st.sampled_from(["refuse", "skip"]),
)  # fmt: skip
@example("jsonl", [{"q": TURNS, "a": SHARED}, {"q": TURNS, "a": TURNS[:1]}], OPTIONS[2], {}, "refuse")
@example("jsonl", [{"q": TURNS, "a": json.dumps(TURNS)}], OPTIONS[2], {}, "refuse")
@example("jsonl", [{"q": "A", "a": "A"}, {"q": TURNS, "a": TURNS[:1]}], OPTIONS[2], {}, "refuse")
@example("jsonl", [{"a": "A"}, {"a": []}], OPTIONS[4] | {"messages": "a"}, {"limit": 2}, "skip")
def test_nested_documents(
    kind: str, documents: list[dict[str, Any]], options: dict[str, Any], further: dict[str, Any], on_bad: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        lines = [json.dumps(document) for document in documents]
        path.write_text(json.dumps(documents, indent=1) if kind == "array" else "\n".join(lines))
        YIELDED[:] = documents
        kind = {"array": "jsonl"}.get(kind, kind)
        place = Path(folder) if kind == "hub" else path
        check_against_run(built(kind, place, options, further, on_bad), documents, options)


CELLS = st.lists(
    st.fixed_dictionaries({name: TEXTS | st.sampled_from(["", "3", "null", '"', "x"]) for name in "qak"}),
    min_size=1,
    max_size=6,
)


@given(
    st.sampled_from(["csv", "tsv"]), CELLS, st.sampled_from(OPTIONS[:4]), st.sampled_from(FURTHER[:3]), st.booleans()
)
def test_tables(
    ending: str, cells: list[dict[str, str]], options: dict[str, Any], further: dict[str, Any], refuse: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{ending}"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list("qak"), delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(cells)
        direct = {written for option, written in options.items() if "{" not in written}
        documents = [{k: None if v == "" and k in direct else v for k, v in row.items()} for row in cells]
        source = built("csv", path, options, further, "refuse" if refuse else "skip")
        check_against_run(source, documents, options)


@given(
    st.lists(st.none() | TEXTS, min_size=1) | st.lists(st.none() | st.integers(-9, 9), min_size=1),
    st.sampled_from(OPTIONS[:2]), st.sampled_from(["refuse", "skip"]),
)  # fmt: skip
def test_columns_of_parquet(values: list[Any], options: dict[str, Any], on_bad: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        pq.write_table(pa.table({"a": values, "q": values}), path)
        documents = [{"a": value, "q": value} for value in values]
        check_against_run(built("parquet", path, options, {}, on_bad), documents, options)


def only_letters(content: bytes) -> bool:
    """Whether no byte is an id of `Letters` for the begin or the end of a text."""
    return not {0, 1} & set(content)


@given(
    st.lists(st.binary(max_size=3).filter(only_letters) | TEXTS.map(str.encode), min_size=1, max_size=4),
    st.sampled_from(["refuse", "skip"]),
)
def test_files_of_text(contents: list[bytes], on_bad: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        documents: list[dict[str, Any]] = []
        for number, content in enumerate(contents):
            (Path(folder) / f"{number}.txt").write_bytes(content or b"x")
            try:
                documents.append({"text": (content or b"x").decode()})
            except UnicodeDecodeError:
                documents.append({"text": None})
        packed = any(content[:3] in (b"BZh", b"\x1f\x8b", b"\xef\xbb\xbf") for content in contents)
        if not packed:
            check_against_run(built("text", Path(folder), {}, {}, on_bad), documents, {"text": "text"})


@pytest.mark.parametrize(
    ("documents", "used"),
    [
        (["{}", "{}", '{"a": "good"}'], 0),
        (['{"a": "one"}', '{"a": "two"}', "no JSON at all"], 2),
        (['{"a": "one"}', "{}", '{"a": "three"}'], 1),
    ],
)
def test_a_limit_counts_every_document_and_nothing_behind_it_is_read(
    tmp_path: Path, documents: list[str], used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continual.data.tokenize.load_tokenizer", lambda _: Letters())
    (tmp_path / "x.jsonl").write_text("\n".join(documents))
    for on_bad in ("refuse", "skip"):
        source = built("jsonl", tmp_path / "x.jsonl", {"text": "a"}, {"limit": 2}, on_bad)
        refused, made, _ = outcome(source)
        try:
            check_source("data", source, chat_template=True)
            checked = ""
        except ConfigurationError as error:
            checked = str(error)
        assert bool(refused) == bool(checked)
        assert refused or len(made) == used


def test_a_tokenizer_that_fails_is_said_of_its_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Letters):
        def __call__(self, text: str | list[str], add_special_tokens: bool = True, **options: Any) -> dict[str, Any]:
            if isinstance(text, str) and "z" in text:
                raise Exception("WordLevel error: Missing [UNK] token from the vocabulary")
            return super().__call__(text, add_special_tokens, **options)

    monkeypatch.setattr("continual.data.tokenize.load_tokenizer", lambda _: Failing())
    (tmp_path / "x.jsonl").write_text('{"a": "one"}\n{"a": "zero"}\n{"a": "two"}')
    refused, _, _ = outcome(built("jsonl", tmp_path / "x.jsonl", {"text": "a"}, {}, "refuse"))
    assert "x.jsonl line 2: the tokenizer or its chat template fails on it (Exception: WordLevel error" in refused
    refused, made, counts = outcome(built("jsonl", tmp_path / "x.jsonl", {"text": "a"}, {}, "skip"))
    assert (refused, [whole for whole, _ in made], counts["skipped"]) == ("", ["one", "two"], 1)
