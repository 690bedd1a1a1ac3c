"""A real run hides the secrets that it is given, and listens on the loopback device alone."""

import ipaddress
import json
import sqlite3
from pathlib import Path

from tests.e2e import doors


def test_planted_secrets_are_found_nowhere(tiny: Path) -> None:
    """In the storage with all its databases, what Ray wrote of the session, and stdout and stderr of run and plans."""
    assert json.loads((tiny / doors.FOUND).read_text()) == []


def test_what_was_planted_reached_the_run(tiny: Path) -> None:
    with sqlite3.connect(tiny / "mlflow.db") as database:
        values = [row[0] for row in database.execute("select value from tags where key = 'source'")]
        values += [row[0] for row in database.execute("select value from params where key = 'origin'")]
    assert "https://***@data.example/x?token=***&v=1" in values
    assert "postgresql://reader:***@host/db" in values
    assert "***" in (tiny / "tiny" / "config.yaml").read_text()
    planned = json.loads((tiny / doors.PLANNED).read_text())
    assert "https://***@mlflow.example" in planned["plan"][0]
    failure = tiny / doors.FAILURE
    # The run has met the URI: its records wait.
    assert planned["tracked"] == ["0", "True"], failure.read_text() if failure.is_file() else ""
    [sentence] = [line for line in planned["refused"][1].splitlines() if line.startswith("error: ")]
    assert "urii" in sentence


def test_a_local_run_listens_on_loopback(tiny: Path) -> None:
    """The port of a training worker is the exception that docs/security.md names."""
    listened = json.loads((tiny / doors.LISTENED).read_text())
    assert {"gcs_server", "raylet"} <= {
        name for processes in listened.values() for names in processes for name in names
    }
    open_to_others = [
        names
        for address, processes in listened.items()
        if not ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
        for names in processes
    ]
    assert all("ray::RayTrainWorker" in names for names in open_to_others), open_to_others
