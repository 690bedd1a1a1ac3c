"""mu + a_i + b_j of the known rows, and what it says of a row of which few cells are known."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Baseline:
    """The additive model of M known rows, as random effects whose sizes the rows themselves tell.

    With m the mean of all cells, the variances of the rows A, of the columns B and of the rest E are those of the
    balanced two-way table, each at least 0:

        E = sum(rest^2) / ((M - 1)(N - 1)),  A = variance of the rows' means - E / N,  B = that of the columns' - E / M

    `columns` [N]: mu + b_j = m + s (mean of column j - m), s = B / (B + E / M). `rest` [M, N]: what the means of rows
    and columns leave. `row`: A (1 + 1/M), the variance of a new row around m; `cell`: E (1 + s/M), that of a new cell
    around its row and column. Of a single row, or column, no variance is known: nothing is shrunk, and both are 0.
    """

    columns: np.ndarray
    rest: np.ndarray
    row: float
    cell: float

    def shift(self, columns: np.ndarray, values: np.ndarray) -> float:
        """Return a new row's a from K of its cells: the ridge estimate with the penalty `cell` / `variance` on a^2.

        It is the mean of `values` - `columns`, times 1 / (1 + penalty / K).
        """
        mean = float(np.mean(values - self.columns[columns]))
        if self.cell == 0.0:
            return mean
        variance = self.variance(columns, values)
        return mean * variance / (variance + self.cell / len(columns))

    def variance(self, columns: np.ndarray, values: np.ndarray) -> float:
        """Return the variance of a: `row` together with what K cells of the new row tell of it.

        The new row counts as one of M: of few known rows that happen to agree it might be far.
        """
        own = float(np.mean(values - self.columns[columns])) ** 2 - self.cell / len(columns)
        count = len(self.rest)
        return ((count - 1) * self.row + max(0.0, own)) / count


def baseline(known: np.ndarray) -> Baseline:
    """Return the additive model of known rows [M, N]."""
    height, width = known.shape
    mean, rows, columns = known.mean(), known.mean(1), known.mean(0)
    rest = known - columns
    rest -= (rows - mean)[:, None]
    if height < 2 or width < 2:
        return Baseline(columns, rest, 0.0, 0.0)
    cell = float(np.sum(rest**2)) / ((height - 1) * (width - 1))
    of_rows = max(0.0, float(np.var(rows, ddof=1)) - cell / width)
    of_columns = max(0.0, float(np.var(columns, ddof=1)) - cell / height)
    share = of_columns / (of_columns + cell / height) if of_columns else 0.0
    row, own = of_rows * (1 + 1 / height), cell * (1 + share / height)
    return Baseline(mean + share * (columns - mean), rest, row, own)
