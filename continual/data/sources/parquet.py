"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from continual.contract.source import Document
from continual.data.sources.files import ColumnSource, FileSource
from continual.errors import ConfigurationError, one_line
from continual.errors.budget import LINE, is_limited, spend

BATCH, LOOK = 1024, 32
"""Rows that are read at a time, and before a run."""
OPTIONAL = ("tools", "split", "input", "system")
"""Columns that are read where they are there: they mean something, or are missed where they are not used."""


class ParquetSource(ColumnSource, FileSource):
    """Parquet files: one document per row."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    type: Literal["parquet"] = "parquet"

    def documents(self, file: Path) -> Iterator[tuple[str, Document | ConfigurationError]]:
        return parquet_documents(file, self.columns())

    def count(self) -> int | None:
        return sum(count_rows(file) for file in self.files())


def count_rows(file: Path) -> int:
    """Return the rows of a parquet file."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def parquet_documents(file: Path, columns: list[str]) -> Iterator[tuple[str, Document]]:
    """Yield the rows of a file with their places, with the columns that are needed, and all if one is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        problem = f"{file.name} is not a parquet file ({one_line(error)})"
        raise ConfigurationError("path", problem, "write it again or correct `type`") from error
    with table:
        there = table.schema_arrow.names
        twice = next((name for name in (*columns, "tools", "split") if there.count(name) > 1), None)
        if twice is not None:
            raise ConfigurationError("path", f"{file.name} has the column `{twice}` twice", "rename one")
        names = needed(columns, there)
        number = 0
        for batch in table.iter_batches(batch_size=LOOK if is_limited() else BATCH, columns=names):
            spend(batch.nbytes + LINE * batch.num_rows)
            for number, row in enumerate(batch.to_pylist(maps_as_pydicts="strict"), number + 1):  # noqa: B020  numbers go on
                yield f"row {number}", {name: without_absent(value) for name, value in row.items()}


def needed(columns: list[str], there: list[str]) -> list[str] | None:
    """Return the columns of a table to read; None: all, if one is missing and the message must name those there are."""
    wanted = [name for name in there if name in {*columns, *OPTIONAL}]
    return wanted if set(columns) <= set(wanted) else None


def without_absent(value: Any) -> Any:
    """Return a nested value without the keys that Arrow gives to every struct, None where one had none."""
    if isinstance(value, dict):
        return {key: without_absent(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_absent(item) for item in value]
    return value
