"""A SQLite tracker that was moved or copied with its storage: MLflow keeps absolute places of artifacts."""

import sqlite3
from contextlib import closing
from pathlib import Path

from continual.ledger.folder import sqlite_file
from continual.ledger.places import stored

ARTIFACTS = "mlartifacts"
"""The folder beside the SQLite file in which its experiments keep their artifacts."""
PLACES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)  # fmt: skip
"""Tables of MLflow 3 and their columns with places."""


def sqlite_in(storage: Path, uri: str) -> str | None:
    """Return a name for a SQLite file in the storage that it keeps when the storage is moved; None for other trackers.

    Runs moved with their tracker have nothing to send again.
    """
    file = sqlite_file(uri)
    place = stored(file, storage) if file else ""
    return f"storage:{place}" if place and not Path(place).is_absolute() else None


def move_artifacts(database: Path) -> None:
    """Make artifacts that lie in `mlartifacts` beside the file be looked for there, wherever they lay before.

    Otherwise MLflow makes the old folder again and writes into it. MLflow itself cannot change a location.
    """
    here = (database.parent / ARTIFACTS).as_uri()
    if not database.is_file() or not (database.parent / ARTIFACTS).is_dir():
        return
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, column in PLACES:
            if table not in tables:
                continue
            places = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file://%/{ARTIFACTS}%'"
            for (place,) in connection.execute(places).fetchall():
                root, mark, rest = place.rpartition(f"/{ARTIFACTS}")
                if f"{root}{mark}" != here and rest[:1] in ("", "/"):
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (here + rest, place))
