"""The forecast for one task: how it is made, and the files that it leaves."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from continual.associations.forecast import SCORES, Forecast, ForecastError, evaluate, forecast
from continual.associations.matrix import Associations, write_table
from continual.ledger.folder import RunFolder
from continual.store.files import write_atomic

LISTED = 20
"""Documents that are named as at risk."""
LOWER = ("rmse",)
"""Scores of forecasts of which less is better."""


def chosen_error(matrix: Associations, name: str | None, probes: int) -> ForecastError:
    """Return how far the forecasts of a model are off on the matrix's own tasks, None: of the best one.

    Raises ConfigurationError for a model that there is not, or too few tasks.
    """
    errors = {error.model: error for error in evaluate(matrix, probes, models=None if name is None else [name])}
    score = SCORES[matrix.kind][-1]
    sign = 1.0 if score in LOWER else -1.0
    means = {model: found.mean for model, error in errors.items() if (found := error.scores[score]) is not None}
    return errors[min(means, key=lambda model: sign * means[model])] if means else next(iter(errors.values()))


def write_forecast(
    folder: Path, matrix: Associations, columns: np.ndarray, change: np.ndarray, error: ForecastError
) -> str:
    """Forecast a task from the changes [K] of documents `columns` [K], write both files, and say what was found."""
    found, files = forecast(matrix, columns, change, error, LISTED), RunFolder(folder)
    _write_table(files.forecast_table, matrix, columns, found)
    numbers = {
        "upstream": matrix.facts["upstream"],
        "model": found.model,
        "probes": len(columns),
        "mean": found.mean,
        "interval": found.interval,
        "measured_mean": float(change.mean()),
        "at_risk": [asdict(each) for each in found.at_risk],
        "error": asdict(error),
    }
    write_atomic(files.forecast, json.dumps(numbers, indent=1))
    low, high = found.interval
    of_all = f"from {len(columns)} of {len(matrix.documents):,} documents of `{matrix.facts['upstream']}`"
    mean = f"{found.mean:+.4f} nats per token on average, 95 % between {low:+.4f} and {high:+.4f}"
    worst = ", ".join(f"{each.document} ({each.change:+.3f})" for each in found.at_risk[:5])
    return "\n".join(
        [
            f"forecast ({found.model}, {of_all}): {mean}",
            f"most at risk: documents {worst}",
            f"  all documents: {files.forecast_table}",
        ]
    )


def _write_table(path: Path, matrix: Associations, columns: np.ndarray, found: Forecast) -> None:
    """Write a row per document: its number, the forecast, whether it was measured, and the loss before."""
    import pyarrow as pa

    measured = np.zeros(len(matrix.documents), bool)
    measured[columns] = True
    table = pa.table(
        {
            "document": pa.array(matrix.documents, pa.string()),
            "forecast": pa.array(found.row),
            "measured": pa.array(measured),
            "before": pa.array(matrix.before),
        }
    )
    write_table(table, path)
