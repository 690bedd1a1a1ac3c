"""The matrix of associations, a row per task and a column per upstream document, and its file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from continual.errors import ConfigurationError, ContinualError, one_line
from continual.store.files import write_atomic
from continual.store.json_files import has, parsed_json

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["nats", "lost"]
CHANGE = "change/"
"""What the name of a task's column begins with."""
METADATA = b"continual.associations"
"""The key of the file's metadata: JSON with `kind` and `facts`."""
FIX = "name a file of associations, or collect them again"


@dataclass(frozen=True)
class Associations:
    """What M tasks, each learned alone from the same start, changed on N upstream documents.

    `tasks` [M], `documents` [N]: their names, each once. `kind` "nats": `before` [N] is the log-perplexity under the
    start model in nats per token, and `change` [M, N] that after the task minus that before. `kind` "lost": the start
    model is right about every document, so that `before` is 1, and `change` is 1 where it is wrong after the task, else
    0. `change` > 0 is forgetting. `facts`: JSON about the upstream documents, the model and the settings.
    """

    tasks: tuple[str, ...]
    documents: tuple[str, ...]
    before: np.ndarray
    change: np.ndarray
    kind: Kind
    facts: Mapping[str, Any]


def write(associations: Associations, path: Path) -> None:
    """Write associations as Parquet, a row per document, at once or not at all.

    The columns are `document`, `before` and `change/<task>` of every task. Raises ContinualError for what `read` would
    refuse.
    """
    import pyarrow as pa

    if problem := _problem(associations):
        raise ContinualError(f"{path} is not written: {problem}")
    columns = {"document": pa.array(associations.documents, pa.string()), "before": pa.array(associations.before)}
    columns |= {CHANGE + task: pa.array(row) for task, row in zip(associations.tasks, associations.change, strict=True)}
    about = json.dumps({"kind": associations.kind, "facts": dict(associations.facts)}, allow_nan=False)
    table = pa.table(columns).replace_schema_metadata({METADATA: about})
    write_table(table, path)


def write_table(table: "pa.Table", path: Path) -> None:
    """Write a table as Parquet, at once or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def read(path: Path) -> Associations:
    """Return the associations in a file. Raises ConfigurationError for a file that `write` has not written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise _refused(path, "this is a folder" if path.is_dir() else "there is no such file")
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise _refused(path, f"this is not a Parquet file ({one_line(error)})") from error
    about = parsed_json((table.schema.metadata or {}).get(METADATA, b""))
    if not has(kind=str, facts=dict)(about) or about["kind"] not in get_args(Kind):
        raise _refused(path, f"the metadata `{METADATA.decode()}` with `kind` and `facts` is missing")
    tasks = tuple(name.removeprefix(CHANGE) for name in table.column_names if name.startswith(CHANGE))
    found = Associations(
        tasks,
        tuple(_column(table, "document", path).to_pylist()),
        _numbers(table, "before", path),
        np.array([_numbers(table, CHANGE + task, path) for task in tasks]).reshape(len(tasks), table.num_rows),
        about["kind"],
        about["facts"],
    )
    if problem := _problem(found):
        raise _refused(path, problem)
    return found


def _refused(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError("", problem, FIX, str(path))


def _column(table: "pa.Table", name: str, path: Path) -> "pa.ChunkedArray":
    count = table.column_names.count(name)
    if count != 1:
        raise _refused(path, f"the column `{name}` is {'there twice' if count else 'missing'}")
    column = table.column(name)
    if column.null_count:
        raise _refused(path, f"the column `{name}` has empty cells")
    return column


def _numbers(table: "pa.Table", name: str, path: Path) -> np.ndarray:
    import pyarrow as pa

    column = _column(table, name, path)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise _refused(path, f"the column `{name}` holds no numbers")
    return np.asarray(column.to_numpy(), np.float64)


def _problem(associations: Associations) -> str | None:
    """Return what is wrong with associations; None if nothing is."""
    for what, names in (("task", associations.tasks), ("document", associations.documents)):
        if not names:
            return f"there is no {what}"
        if not all(isinstance(name, str) for name in names):
            return f"the name of a {what} is no text"
        if len(set(names)) < len(names):
            return f"two {what}s have one name"
    shape = (len(associations.tasks), len(associations.documents))
    if associations.change.shape != shape or associations.before.shape != shape[1:]:
        return f"the numbers are not those of {shape[0]} tasks and {shape[1]} documents"
    for what, values in (("before", associations.before), ("change", associations.change)):
        if not np.isfinite(values).all():
            return f"`{what}` has a number that is not finite"
    if associations.kind == "lost":
        if not (associations.before == 1.0).all():
            return "the start model is not right about every document, and what it does not know is not lost"
        if not np.isin(associations.change, (0.0, 1.0)).all():
            return "a change of kind `lost` is neither 0 nor 1"
    return None
