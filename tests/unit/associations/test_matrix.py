"""The file of associations: it is read as it was written, and anything else is refused in a sentence."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.associations.matrix import METADATA, read, write
from continual.errors import ConfigurationError, ContinualError
from tests.unit.associations.structures import associations_of

NATS = replace(
    associations_of(np.array([[0.1, -0.2, 3e-17], [1 / 3, 0.0, -5.5]])),
    tasks=("math/algebra v2", "änder"),
    facts={"upstream": {"path": "a.jsonl", "rows": 3}, "settings": [1, None, 0.5]},
)
LOST = associations_of([[0, 1, 0], [1, 1, 0]], "lost")


@pytest.mark.parametrize("associations", [NATS, LOST], ids=["nats", "lost"])
def test_a_file_is_read_as_it_was_written(associations, tmp_path):
    write(associations, tmp_path / "folder" / "a.parquet")
    found = read(tmp_path / "folder" / "a.parquet")
    assert (found.tasks, found.documents, found.kind) == (associations.tasks, associations.documents, associations.kind)
    assert found.facts == associations.facts
    assert np.array_equal(found.before, associations.before)
    assert np.array_equal(found.change, associations.change)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.parquet"]


def test_other_tools_read_the_file(tmp_path):
    write(NATS, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["document", "before", "change/math/algebra v2", "change/änder"]
    assert table.column("change/änder").to_pylist() == list(NATS.change[1])


BAD = {
    "there is no task": replace(NATS, tasks=(), change=np.zeros((0, 3))),
    "there is no document": replace(NATS, documents=(), change=np.zeros((2, 0)), before=np.zeros(0)),
    "two tasks have one name": replace(NATS, tasks=("a", "a")),
    "two documents have one name": replace(NATS, documents=("a", "b", "a")),
    "`change` has a number that is not finite": replace(NATS, change=np.where(NATS.change == 0, np.nan, NATS.change)),
    "`before` has a number that is not finite": replace(NATS, before=np.array([1, np.inf, 1])),
    "the numbers are not those of 2 tasks and 3 documents": replace(NATS, change=np.zeros((3, 2))),
    "the start model is not right about every document": replace(LOST, before=np.array([1.0, 0.0, 1.0])),
    "a change of kind `lost` is neither 0 nor 1": replace(LOST, change=LOST.change - 1.0),
}


@pytest.mark.parametrize("problem", BAD)
def test_what_could_not_be_read_is_not_written(problem, tmp_path):
    with pytest.raises(ContinualError, match=problem):
        write(BAD[problem], tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, values)


CHANGED = {
    "the metadata `continual.associations` with `kind` and `facts` is missing": lambda table: (
        table.replace_schema_metadata({})
    ),
    "metadata .* is missing": lambda table: table.replace_schema_metadata({METADATA: '{"kind": "bits", "facts": {}}'}),
    "the column `before` is missing": lambda table: table.drop_columns(["before"]),
    "the column `document` is missing": lambda table: table.drop_columns(["document"]),
    "the column `before` is there twice": lambda table: table.append_column("before", table.column("before")),
    "there is no task": lambda table: table.select(["document", "before"]),
    "there is no document": lambda table: table.slice(0, 0),
    "the column `before` holds no numbers": lambda table: with_column(table, "before", pa.array(["a", "b", "c"])),
    "the column `change/änder` has empty cells": lambda table: with_column(
        table, "change/änder", pa.array([1.0, None, 2.0])
    ),
    "the name of a document is no text": lambda table: with_column(table, "document", pa.array([1, 2, 3])),
    "`change` has a number that is not finite": lambda table: with_column(
        table, "change/änder", pa.array([1.0, float("nan"), 2.0])
    ),
}


@pytest.mark.parametrize("problem", CHANGED)
def test_a_file_that_was_changed_is_refused(problem, tmp_path):
    path = tmp_path / "a.parquet"
    write(NATS, path)
    pq.write_table(CHANGED[problem](pq.read_table(path)), path)
    with pytest.raises(ConfigurationError, match=problem) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_not_parquet_is_refused(content, tmp_path):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"a\.parquet: this is not a Parquet file"):
        read(tmp_path / "a.parquet")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no such file"):
        read(tmp_path / "missing.parquet")
    with pytest.raises(ConfigurationError, match="this is a folder"):
        read(tmp_path)
