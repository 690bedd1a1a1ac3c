"""A new SQLite tracker: MLflow makes its tables in many steps, and one with some of them can never be opened."""

import shutil
from pathlib import Path

from continual.ledger.folder import sqlite_uri


def create_database(file: Path) -> None:
    """Make MLflow's tables in a folder beside `file` and move the result there, so that `file` is whole or missing.

    What a killed process left in that folder is deleted. Call it with the lock of `file`.
    """
    from mlflow import MlflowClient

    unfinished = file.with_name(f".{file.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    MlflowClient(sqlite_uri(unfinished / file.name)).search_experiments(max_results=1)
    (unfinished / file.name).replace(file)
    shutil.rmtree(unfinished, ignore_errors=True)
