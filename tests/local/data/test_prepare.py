"""Every kind of source gives the same documents in the same order, and losses of documents are reported."""

import bz2
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.data.prepare import prepare_rows
from continual.data.rows import RowReader
from continual.errors import ConfigurationError
from continual.store import Artefact, Store
from tests.kits.sources import OUTSIDE

pytestmark = pytest.mark.slow
TEXTS = [f"One day, Tom saw {n} birds." for n in range(60)]


def rows() -> Iterator[dict[str, str]]:
    yield from ({"text": text} for text in TEXTS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("sources")
    lines = "".join(json.dumps({"body": text, "n": n}) + "\n" for n, text in enumerate(TEXTS))
    (folder / "a.jsonl").write_text(lines)
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write(lines)
    with bz2.open(folder / "c.jsonl.bz2", "wt") as file:
        file.write(lines)
    (folder / "d.json").write_text(json.dumps([{"body": text} for text in TEXTS], indent=1))
    (folder / "e.csv").write_text("body,n\n" + "".join(f'"{text}",{n}\n' for n, text in enumerate(TEXTS)))
    (folder / "plain").mkdir()
    (folder / "plain" / "train.csv").write_text((folder / "e.csv").read_text())
    pq.write_table(pa.table({"body": TEXTS[:30]}), folder / "part-0.parquet")
    pq.write_table(pa.table({"body": TEXTS[30:]}), folder / "part-1.parquet")
    datasets.Dataset.from_dict({"body": TEXTS}).save_to_disk(str(folder / "hub"))
    return {
        "jsonl": SOURCES.build({"type": "jsonl", "path": str(folder / "a.jsonl"), "text": "body"}),
        "gzip": SOURCES.build({"type": "jsonl", "path": str(folder / "b.jsonl.gz"), "text": "body"}),
        "bzip2": SOURCES.build({"type": "jsonl", "path": str(folder / "c.jsonl.bz2"), "text": "body"}),
        "array": SOURCES.build({"type": "jsonl", "path": str(folder / "d.json"), "text": "body"}),
        "csv": SOURCES.build({"type": "csv", "path": str(folder / "e.csv"), "text": "body"}),
        "hub of csv": SOURCES.build({"type": "hub", "path": str(folder / "plain"), "text": "body"}),
        "parquet": SOURCES.build({"type": "parquet", "path": str(folder / "part-*.parquet"), "text": "body"}),
        "hub": SOURCES.build({"type": "hub", "path": str(folder / "hub"), "text": "body"}),
        "python": SOURCES.build({"type": "python", "function": "tests.local.data.test_prepare:rows"}),
    }


def documents(artefact: Artefact) -> dict[int, tuple[int, ...]]:
    reader = RowReader(artefact)
    rows = reader.take(np.arange(len(reader)))
    numbers = np.unique(rows["documents"][rows["documents"] >= 0])
    return {int(n): tuple(rows["ids"][rows["documents"] == n].tolist()) for n in numbers}


def test_all_sources_give_the_same_documents(
    local_ray: None, sources: dict[str, Source], stories: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    expected = {n: (*tokenizer(text)["input_ids"], tokenizer.eos_token_id) for n, text in enumerate(TEXTS)}
    assert expected[0][0] == tokenizer.bos_token_id
    for name, source in sources.items():
        artefact = prepare_rows(Store(tmp_path / name), source, str(stories), 64)
        assert documents(artefact) == expected, name
        assert artefact.manifest()["documents"] == 60


def test_the_same_content_is_tokenised_once(
    local_ray: None, sources: dict[str, Source], stories: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, "first")
    first = prepare_rows(store, sources["jsonl"], str(stories), 64)
    copied = tmp_path / "elsewhere.jsonl"
    copied.write_bytes(Path(sources["jsonl"].title).read_bytes())
    again = prepare_rows(
        Store(tmp_path, "second"), sources["jsonl"].model_copy(update={"path": str(copied)}), str(stories), 64
    )
    assert again.hash == first.hash
    assert again.manifest()["maker"] == "first"
    assert prepare_rows(store, sources["jsonl"], str(stories), 32).hash != first.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "boddy"}, "a.jsonl line 1: no field `boddy`; did you mean `body`. it has body, n"),
        ({"limit": 3, "overlong": "drop"}, "no usable document"),
    ],
)
def test_unusable_sources_say_why(
    local_ray: None, sources: dict[str, Source], stories: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepare_rows(Store(tmp_path), sources["jsonl"].model_copy(update=change), str(stories), 8)


def test_losses_are_counted(local_ray: None, sources: dict[str, Source], stories: Path, tmp_path: Path) -> None:
    """With rows of 15 tokens numbers of two digits make a document too long."""
    artefact = prepare_rows(Store(tmp_path), sources["jsonl"], str(stories), 15)
    manifest = artefact.manifest()
    assert manifest["documents"] + manifest["dropped"] == 60
    assert manifest["dropped"] > 0
    cut = prepare_rows(Store(tmp_path), sources["jsonl"].model_copy(update={"overlong": "cut"}), str(stories), 15)
    assert cut.manifest()["cut"] > 0
    assert cut.manifest()["dropped"] == 0


def test_an_outside_source_is_read(local_ray: None, stories: Path, tmp_path: Path) -> None:
    (tmp_path / "count.txt").write_text("70")
    source = SOURCES.build({"type": OUTSIDE, "file": str(tmp_path / "count.txt"), "limit": 65})
    assert prepare_rows(Store(tmp_path), source, str(stories), 64).manifest()["documents"] == 65


def test_files_apart_and_together_give_the_same_rows(
    local_ray: None, sources: dict[str, Source], stories: Path, tmp_path: Path
) -> None:
    lines = Path(sources["jsonl"].title).read_text().splitlines()
    folder = tmp_path / "apart"
    folder.mkdir()
    for number, start in enumerate(range(0, 60, 7)):
        (folder / f"{number}.jsonl").write_text("\n".join(lines[start : start + 7]))
    apart = sources["jsonl"].model_copy(update={"path": str(folder)})
    whole, parts = (prepare_rows(Store(tmp_path), made, str(stories), 64) for made in (sources["jsonl"], apart))
    assert whole.hash != parts.hash
    for key, rows in RowReader(whole).take(np.arange(len(RowReader(whole)))).items():
        np.testing.assert_array_equal(rows, RowReader(parts).take(np.arange(len(RowReader(parts))))[key])


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_bad_documents_come_out_of_the_tasks_as_data(
    local_ray: None, stories: Path, tmp_path: Path, on_bad: str
) -> None:
    lines = [json.dumps({"t": text, "lang": "en"}).encode() for text in TEXTS * 10]
    lines[400], lines[450], lines[500] = b'{"t": "\xff"}', b'{"t": "a", "lang": "de"}', b'{"t": null, "lang": "en"}'
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    options = {"text": "t", "on_bad": on_bad, "where": {"lang": "en"}}
    source = SOURCES.build({"type": "jsonl", "path": str(tmp_path / "x.jsonl"), **options})
    if on_bad == "refuse":
        with pytest.raises(ConfigurationError) as raised:
            prepare_rows(Store(tmp_path), source, str(stories), 64)
        assert str(raised.value) == "path: x.jsonl line 401: not UTF-8 text (byte 8); save the file as UTF-8"
        return
    manifest = prepare_rows(Store(tmp_path), source, str(stories), 64).manifest()
    assert (manifest["read"], manifest["documents"], manifest["skipped"], manifest["left_out"]) == (599, 597, 2, 1)
    assert [reason["first"] for reason in manifest["skipped_for"]] == ["x.jsonl line 401", "x.jsonl line 501"]


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_a_damaged_archive_is_refused_in_one_sentence(
    local_ray: None, stories: Path, tmp_path: Path, on_bad: str
) -> None:
    lines = "".join(json.dumps({"t": f"{text} {n}"}) + "\n" for n, text in enumerate(TEXTS * 100))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-500])
    source = SOURCES.build({"type": "jsonl", "path": str(tmp_path / "x.jsonl.gz"), "text": "t", "on_bad": on_bad})
    with pytest.raises(ConfigurationError, match=r"^path: .*x.jsonl.gz cannot be read .*Truncated"):
        prepare_rows(Store(tmp_path), source, str(stories), 64)
