"""A document's format is decided once: the check, the estimate and the run see the same fields."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.contract.registry import SOURCES
from continual.contract.source import Format, Source
from continual.data.formats import encode
from continual.data.sources.python import PythonSource
from continual.errors import ConfigurationError
from continual.preflight.check_data import check_source
from continual.preflight.estimate import _texts
from tests.kits.sources import OUTSIDE
from tests.unit.data.test_formats import Letters

ROW_TOKENS = 200
PLACES: dict[str, dict[str, Any]] = {
    "jsonl": {"path": "a"},
    "parquet": {"path": "a"},
    "text": {"path": "a"},
    "hub": {"path": "a"},
    "python": {"function": "module:function"},
    OUTSIDE: {"file": "a"},
}
OPTIONS: list[dict[str, str]] = [
    {}, {"text": "text"}, {"text": "body"}, {"prompt": "prompt", "completion": "completion"},
    {"prompt": "body", "completion": "text"}, {"messages": "messages"}, {"messages": "body"},
]  # fmt: skip
TURNS = [{"role": "user", "content": "mu"}, {"role": "assistant", "content": "ma"}]
VALUES = st.sampled_from(["aa", "bb", "cc", "dd", None, TURNS])
DOCUMENTS = st.dictionaries(st.sampled_from(["text", "prompt", "completion", "messages", "body"]), VALUES, min_size=1)


class Seen(dict[str, Any]):
    """A document that remembers which of its fields are read."""

    def __init__(self, document: dict[str, Any]):
        super().__init__(document)
        self.read: set[str] = set()

    def __getitem__(self, field: str) -> Any:
        self.read.add(field)
        return super().__getitem__(field)


def refused(source: Source, document: Seen, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as patch:
        patch.setattr(type(source), "first", lambda *_: [document])
        try:
            check_source("data", source, chat_template=True)
        except ConfigurationError:
            return True
    return False


def sources() -> st.SearchStrategy[Source]:
    return st.sampled_from(
        [
            SOURCES.build({"type": kind, **place, **options})
            for kind, place in PLACES.items()
            for options in OPTIONS
            if options or kind not in ("jsonl", "parquet", "hub")
        ]
    )


@given(sources(), DOCUMENTS)
def test_check_estimate_and_run_read_the_same_fields(source: Source, document: dict[str, Any]) -> None:
    checked, estimated, encoded = Seen(document), Seen(document), Seen(document)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if refused(source, checked, monkeypatch):
            return
    _texts(source, estimated)
    encode(source.example(encoded), source, Letters(), ROW_TOKENS)
    assert checked.read == set(source.format_of(document).fields)
    assert encoded.read == checked.read
    assert estimated.read == checked.read


@given(sources(), DOCUMENTS)
def test_what_the_check_accepts_can_be_encoded_into_tokens_of_its_fields(
    source: Source, document: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        if refused(source, Seen(document), monkeypatch):
            return
    form = source.format_of(document)
    [piece] = encode(source.example(document), source, Letters(), ROW_TOKENS)
    text = "".join(chr(token) for token in piece.ids if token > 1)
    if form.kind == "messages":
        assert text == Letters().apply_chat_template(TURNS)
    else:
        assert text == "".join(document[field] for field in form.fields)


@pytest.mark.parametrize(
    ("options", "document", "expected"),
    [
        ({}, {"text": "a"}, Format("text", ("text",))),
        ({}, {"prompt": "a", "completion": "b", "text": "c"}, Format("prompt", ("prompt", "completion"))),
        ({}, {"messages": [], "prompt": "a"}, Format("messages", ("messages",))),
        ({"text": "text"}, {"text": "a", "prompt": "b", "completion": "c"}, Format("text", ("text",))),
        ({"text": "text"}, {"text": "a", "messages": []}, Format("text", ("text",))),
        ({"prompt": "q", "completion": "a"}, {"q": "a", "a": "b", "messages": []}, Format("prompt", ("q", "a"))),
    ],
)
def test_an_option_decides_before_the_document_does(
    options: dict[str, str], document: dict[str, Any], expected: Format
) -> None:
    source = PythonSource(function="module:function", **options)
    assert source.format_of(document) == expected


def test_text_of_a_document_with_a_prompt_is_trained_whole() -> None:
    source = PythonSource(function="module:function", text="text")
    document = {"text": "once upon a time", "prompt": "once", "completion": "upon"}
    [piece] = encode(source.example(document), source, Letters(), ROW_TOKENS)
    assert piece.ids.tolist() == [1, *map(ord, "once upon a time"), 0]
    assert piece.weights.tolist() == [0.0] + [1.0] * 17


def test_a_relative_path_of_an_outside_source_starts_at_the_yaml(tmp_path: Path) -> None:
    from continual.config.paths import resolve_paths

    raw = {"stages": [{"data": {"type": OUTSIDE, "file": "count.txt"}}]}
    assert resolve_paths(raw, tmp_path) == [("stages", 0, "data", "file")]
    assert raw["stages"][0]["data"]["file"] == str(tmp_path / "count.txt")
