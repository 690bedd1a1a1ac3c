"""Which document of the source a piece comes from, and the error of a text that counts those documents."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual.data.prepare import prepare_rows
from continual.data.rows import ORIGINS, column, read_origins
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ContinualError
from continual.evaluation.texts import score_text
from continual.store import Artefact, Store
from tests.kits.sources import in_process, tokenized
from tests.unit.data.test_formats import Letters

ROW = 8
DOCUMENTS = ["abcdefghijklmnopqrstuvwxyz", "ABC", None, "0123456789" * 3, "xy", "", "QRSTUVWXYZQRS"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.data.tokenize.load_tokenizer", lambda _: Letters())
    monkeypatch.setattr("continual.data.prepare.in_cluster", in_process)
    monkeypatch.setattr("continual.data.prepare._tokenized", tokenized)
    monkeypatch.setattr("continual.data.prepare.tokenizer_hash", lambda _: "letters")
    monkeypatch.setattr("continual.evaluation.texts.token_losses", nats)


def nats(model: Any, columns: dict[str, np.ndarray]) -> np.ndarray:
    """In place of a model: what a token costs follows from its id alone."""
    return (columns["ids"].astype(np.float32) * 37 % 11) / 4


def prepared(folder: Path, documents: list[Any], **options: Any) -> Artefact:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.jsonl").write_text("".join(json.dumps({"t": text}) + "\n" for text in documents))
    options = {"on_bad": "skip", "overlong": "cut"} | options
    source = JsonlSource(path=str(folder / "x.jsonl"), text="t", **options)
    return prepare_rows(Store(folder / "store"), source, "letters", ROW)


def pieces(rows: Artefact) -> dict[int, str]:
    """The letters of every document of the rows, by its number."""
    found: dict[int, str] = {}
    for table in rows.tables():
        ids, documents = column(table, "ids"), column(table, "documents")
        for number in np.unique(documents[documents >= 0]).tolist():
            found[number] = "".join(chr(token) for token in ids[documents == number] if token > 1)
    return found


def clustered(rows: Artefact, origins: np.ndarray) -> tuple[int, float | None]:
    """Documents and standard error from the definition, in Python's floats."""
    sums: dict[int, list[float]] = {}
    for table in rows.tables():
        arrays = {name: column(table, name) for name in ("ids", "weights", "documents")}
        for token, weight, document in zip(*(arrays[name].reshape(-1).tolist() for name in arrays), strict=True):
            if weight > 0:
                of = sums.setdefault(int(origins[document]), [0.0, 0.0])
                of[0] += token * 37 % 11 / 4
                of[1] += 1
    total, count, n = (sum(of[0] for of in sums.values()), sum(of[1] for of in sums.values()), len(sums))
    squares = sum((of[0] - total / count * of[1]) ** 2 for of in sums.values())
    return n, math.sqrt(n / (n - 1) * squares) / count if n > 1 else None


def test_every_piece_names_its_document_also_behind_documents_that_are_left_out(tmp_path: Path) -> None:
    rows = prepared(tmp_path, DOCUMENTS)
    origins, found = read_origins(rows), pieces(rows)
    assert origins is not None
    assert len(origins) == len(found) > 4
    for number, text in found.items():
        assert text in DOCUMENTS[origins[number]]
    # All but the third, which is no text; the sixth is the end of a text alone.
    assert rows.manifest()["origins"] == 6
    assert sorted(set(origins.tolist())) == [0, 1, 3, 4, 5, 6]


def test_the_error_of_a_text_counts_its_documents(tmp_path: Path) -> None:
    rows = prepared(tmp_path, DOCUMENTS)
    origins = read_origins(rows)
    assert origins is not None
    score, records = score_text(None, "text", rows)
    n, error = clustered(rows, origins)
    assert (score.n, score.stderr) == (n, pytest.approx(error, rel=1e-9))
    assert [record["document"] for record in records] == sorted(set(origins.tolist()))
    _, of_pieces = clustered(rows, np.arange(len(origins)))
    assert abs(error - of_pieces) > 0.05 * error  # type: ignore[operator]


@given(st.lists(st.text("abcdefgh", min_size=2, max_size=60), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> None:
    rows = prepared(tmp_path_factory.mktemp("text"), documents)
    origins = read_origins(rows)
    assert origins is not None
    n, error = clustered(rows, origins)
    score, _ = score_text(None, "text", rows)
    assert score.n == n == len(documents)
    assert score.stderr == (None if error is None else pytest.approx(error, rel=1e-9, abs=1e-12))


def test_one_document_has_no_error_however_many_pieces_it_has(tmp_path: Path) -> None:
    rows = prepared(tmp_path, ["abcdefghijklmnopqrstuvwxyz" * 3])
    score, records = score_text(None, "text", rows)
    assert (score.n, score.stderr, len(records)) == (1, None, 1)


def test_an_altered_file_is_noticed(tmp_path: Path) -> None:
    rows = prepared(tmp_path, DOCUMENTS)
    path = rows.path / ORIGINS
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ContinualError, match="missing or damaged"):
        score_text(None, "text", rows)
