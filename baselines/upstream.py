"""The files that `continual.associate` and `continual.forecast` write, as `predicted_replay` reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from continual.api import ConfigurationError

MEASURED = "measured"
"""The column that is true for documents on which forgetting was measured."""
CHANGE = "change/"
"""What the names of the tasks' columns in a matrix begin with."""
FIX = "name a file of `continual.forecast` or `continual.associate`"


@dataclass(frozen=True)
class Upstream:
    """A file with a row per upstream document: their `numbers` in the source [N], which are `free` for replay [N].

    `key` is the option that names the file, for messages.
    """

    path: str
    key: str
    table: Any
    numbers: np.ndarray
    free: np.ndarray

    @classmethod
    def read(cls, path: str, key: str) -> "Upstream":
        """Read a file. Raises ConfigurationError if it is none of these, or about no text."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(Path(path))
        except (OSError, pa.ArrowException) as error:
            raise ConfigurationError(key, f"{path} is no Parquet file that can be read", FIX) from error
        if "document" not in table.column_names:
            raise ConfigurationError(key, f"{path} has no column `document`", FIX)
        try:
            numbers = np.array([int(name) for name in table.column("document").to_pylist()])
        except (TypeError, ValueError) as error:
            raise ConfigurationError(key, f"{path} is not about the documents of a text", FIX) from error
        free = np.ones(len(numbers), bool)
        if MEASURED in table.column_names:
            free = ~np.asarray(table.column(MEASURED).to_numpy(zero_copy_only=False), bool)
        return cls(path, key, table, numbers, free)

    def values(self, column: str) -> np.ndarray:
        """Return a column of finite numbers [N]; raise ConfigurationError if it is missing or holds something else."""
        if column == "document" or column not in self.table.column_names:
            known = ", ".join(name for name in self.table.column_names if name not in ("document", MEASURED))
            raise ConfigurationError("column", f"{self.path} has no column `{column}`", f"it has: {known}")
        try:
            values = np.asarray(self.table.column(column).to_numpy(), np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError("column", f"`{column}` of {self.path} holds no numbers", FIX) from error
        if not np.isfinite(values).all():
            raise ConfigurationError("column", f"`{column}` of {self.path} is not finite everywhere", FIX)
        return values

    def changes(self) -> np.ndarray:
        """Return the matrix [M, N] of what each task has changed, in nats per token.

        Raises ConfigurationError for a file without tasks, and for one about answers that are lost or kept.
        """
        names = [name for name in self.table.column_names if name.startswith(CHANGE)]
        if not names:
            fix = "name the `associations.parquet` of `continual.associate`"
            raise ConfigurationError(self.key, f"{self.path} has no column `{CHANGE}<task>`", fix)
        matrix = np.stack([self.values(name) for name in names])
        if np.isin(matrix, (0.0, 1.0)).all():
            problem = f"{self.path} is about answers that are lost or kept, and probes are measured in nats"
            raise ConfigurationError(self.key, problem, "name a matrix about a text")
        return matrix
