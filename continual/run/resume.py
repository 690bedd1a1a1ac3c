"""May this configuration go on in this run folder? Torch-free, so that the answer comes at once."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from continual.config.load import Loaded, differences
from continual.errors import ConfigurationError
from continual.ledger.ledger import Ledger, read_events
from continual.show.tracking import Tracker
from continual.store import write_atomic

IDENTITY = "identity.json"
FLUSH_SECONDS = 30.0
"""How long the end of a run waits for a slow tracker; what is left stays in the spool and follows with the next run."""


def refuse_changes(folder: Path, loaded: Loaded) -> None:
    """Raises ConfigurationError if the run in `folder` was begun with a configuration that asks for other results."""
    path = folder / IDENTITY
    changed = differences(json.loads(path.read_text()), loaded.identity) if path.is_file() else []
    if changed:
        raise ConfigurationError(
            "name",
            f"the run `{loaded.sequence.name}` in {folder} was begun with other values of {', '.join(changed)}",
            "choose a new `name`, or give --fresh to begin it again",
            loaded.file,
        )


def finished(folder: Path, loaded: Loaded) -> dict[str, Any] | None:
    """The summary of the finished run, None if there is something to do. Raises ConfigurationError if it differs."""
    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text())
    if summary.get("status") != "done" or not read_events(folder, "closed"):
        return None
    refuse_changes(folder, loaded)
    return summary


def tracking_uri(loaded: Loaded) -> str:
    """`track.uri`, or the SQLite file of the storage."""
    return loaded.sequence.track.uri or f"sqlite:///{Path(loaded.sequence.storage).resolve() / 'mlflow.db'}"


def tracker_of(loaded: Loaded) -> Tracker:
    track = loaded.sequence.track
    return Tracker(loaded.run_folder, tracking_uri(loaded), track.experiment or loaded.sequence.name, track.enabled)


def catch_up(loaded: Loaded, summary: dict[str, Any]) -> None:
    """Send what a tracker that was down has not got of a finished run, and put its run's id into the summary."""
    if not (loaded.run_folder / "mlflow" / "spool.jsonl").is_file():
        return
    with Ledger(loaded.run_folder):
        tracker = tracker_of(loaded)
        tracker.close(FLUSH_SECONDS)
        if summary["mlflow_run_id"] is None and (found := tracker.run_id("sequence")) is not None:
            summary["mlflow_run_id"] = found
            write_atomic(loaded.run_folder / "summary.json", json.dumps(summary, indent=1))


@contextmanager
def claim(folder: Path, loaded: Loaded, fresh: bool) -> Iterator[Ledger]:
    """The run's ledger under its lock, its configuration on record.

    Raises ConfigurationError for a changed configuration, ContinualError if another driver holds the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Ledger(folder) as ledger:
        if fresh:
            _forget(folder)
            ledger.events.clear()
        refuse_changes(folder, loaded)
        write_atomic(folder / IDENTITY, json.dumps(loaded.identity))
        write_atomic(folder / "config.yaml", yaml.safe_dump(loaded.resolved, sort_keys=False))
        yield ledger


def _forget(folder: Path) -> None:
    """Empty the run's folder but for its lock, which we hold.

    What says that something is done goes first and the configuration last: a kill in between leaves neither a ledger
    that promises files which are gone, nor one that another configuration could take for its own.
    """
    order = {"ledger.jsonl": 0, "summary.json": 1, IDENTITY: 3}
    for path in sorted(folder.iterdir(), key=lambda path: order.get(path.name, 2)):
        if path.name == "lock":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
