"""Check that a configuration may resume the run in a folder. Torch-free, so that the answer comes at once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from continual.config.load import Loaded
from continual.config.yaml_text import yaml_text
from continual.ledger.changes import refuse_changes
from continual.ledger.folder import RunFolder, default_tracking_uri
from continual.ledger.ledger import Ledger, read_ledger
from continual.ledger.progress import is_summary
from continual.run.summary import checkpoints
from continual.show.tracking import SEQUENCE, Tracker
from continual.store import write_atomic
from continual.store.json_files import known_json
from continual.store.notices import say
from continual.store.places import remove

FLUSH_SECONDS = 30.0
"""How long the end of a run waits for a slow tracker; the next run sends what is left."""


def finished(folder: Path, loaded: Loaded) -> dict[str, Any] | None:
    """Return the summary of the finished run, None if there is something to do.

    Raises ConfigurationError if the configuration has changed (see `refuse_changes`).
    """
    files = RunFolder(folder)
    if not files.summary.is_file():
        return None
    summary, ledger = known_json(files.summary, is_summary), read_ledger(folder)
    if not summary:
        say(f"note: {files.summary} is damaged; the run writes it again")
    if summary.get("status") != "done" or not ledger.all("closed"):
        return None
    refuse_changes(folder, loaded)
    if (models := checkpoints(files, ledger)) != summary.get("checkpoints"):  # the storage was moved
        summary["checkpoints"] = models
        write_atomic(files.summary, json.dumps(summary, indent=1))
    return summary


def tracking_uri(loaded: Loaded) -> str:
    """Return `track.uri`, or the SQLite file of the storage."""
    return loaded.sequence.track.uri or default_tracking_uri(Path(loaded.sequence.storage).resolve())


def tracker_of(loaded: Loaded) -> Tracker:
    """Return the tracker of a run whose ledger has begun; its thread works until `close`."""
    track, events = loaded.sequence.track, RunFolder(loaded.run_folder).ledger
    return Tracker(events, tracking_uri(loaded), track.experiment, track.enabled)


def catch_up(loaded: Loaded, summary: dict[str, Any]) -> None:
    """Send what a tracker that was down still lacks of a finished run, and put the id of its run into the summary."""
    files = RunFolder(loaded.run_folder)
    if not files.tracker_state.is_file():
        return
    with Ledger(loaded.run_folder):
        tracker = tracker_of(loaded)
        tracker.close(FLUSH_SECONDS)
        if summary.get("mlflow_run_id") is None and (run_id := tracker.run_id(SEQUENCE)) is not None:
            summary["mlflow_run_id"] = run_id
            write_atomic(files.summary, json.dumps(summary, indent=1))


@contextmanager
def claim(folder: Path, loaded: Loaded, fresh: bool) -> Iterator[Ledger]:
    """Hold the run's lock, record its configuration and yield its ledger.

    Raises ConfigurationError for a changed configuration, ContinualError if another driver holds the run.
    """
    files = RunFolder(folder)
    with Ledger(folder) as ledger:
        if fresh:
            _forget(files)
            ledger.forget()
        refuse_changes(folder, loaded)
        write_atomic(files.identity, json.dumps(loaded.identity))
        write_atomic(files.config, yaml_text(loaded.resolved))
        yield ledger


def _forget(files: RunFolder) -> None:
    """Empty the run's folder except for its lock, which we hold.

    What says that something is done is deleted first and the configuration last: a kill in between leaves neither a
    ledger that promises files which are gone, nor one that another configuration could take for its own.
    """
    order = {files.ledger: 0, files.summary: 1, files.identity: 3}
    for path in sorted(files.path.iterdir(), key=lambda path: order.get(path, 2)):
        if path == files.lock:
            continue
        remove(path)
