"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from continual.contract.source import Document
from continual.data.sources.files import READ_CPUS, ColumnSource, FileSource, as_json
from continual.errors import ConfigurationError, one_line

if TYPE_CHECKING:
    import ray.data


class ParquetSource(ColumnSource, FileSource):
    """Parquet files: one document per row."""

    type: Literal["parquet"] = "parquet"

    def read(self, key: str, file: Path, count: int) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as table:
                yield from next(table.iter_batches(batch_size=count), pa.RecordBatch.from_pylist([])).to_pylist()
        except (pa.ArrowException, OSError) as error:
            problem = f"{file.name} is not a parquet file ({one_line(error)})"
            raise ConfigurationError(key, problem, "write it again or correct `type`") from error

    def count(self) -> int | None:
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(file).num_rows for file in self.files())

    def documents(self) -> "ray.data.Dataset":
        import ray.data

        return ray.data.read_parquet([str(path) for path in self.files()]).map(as_json, num_cpus=READ_CPUS)
