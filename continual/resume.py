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
from continual.ledger import Ledger
from continual.store import write_atomic

IDENTITY = "identity.json"


def _refuse_changes(folder: Path, loaded: Loaded) -> None:
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
    if summary.get("status") != "done":
        return None
    _refuse_changes(folder, loaded)
    return summary


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
        _refuse_changes(folder, loaded)
        write_atomic(folder / IDENTITY, json.dumps(loaded.identity))
        write_atomic(folder / "config.yaml", yaml.safe_dump(loaded.resolved, sort_keys=False))
        yield ledger


def _forget(folder: Path) -> None:
    """Empty the run's folder but for its lock, which we hold."""
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
