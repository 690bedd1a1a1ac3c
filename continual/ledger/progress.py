"""What a run has done already, read from its folder without disturbing a driver that works there."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.ledger.folder import RunFolder
from continual.ledger.ledger import read_ledger


@dataclass
class Progress:
    """Events of the ledger by stage: `done` stages, and what was `prepared` for each. `finished`: nothing is left."""

    finished: bool = False
    begun: bool = False
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    prepared: dict[int, dict[str, Any]] = field(default_factory=dict)


def read_progress(run_folder: Path) -> Progress:
    """Return the progress of the run in a folder; nothing is begun if it holds no run."""
    ledger = read_ledger(run_folder)
    return Progress(
        finished=_read(RunFolder(run_folder).summary).get("status") == "done",
        begun=any(event["event"] != "run" for event in ledger.events),
        done={event["stage"]: event for event in ledger.all("stage_done")},
        prepared={event["stage"]: event for event in ledger.all("prepared")},
    )


def counted(store: Path, kind: str, hashes: list[str], count: str) -> int | None:
    """Return a count summed over stored artefacts; None unless all of them are complete."""
    manifests = [_read(store / kind / name / "manifest.json").get("counts", {}) for name in hashes]
    return sum(int(counts[count]) for counts in manifests) if all(count in counts for counts in manifests) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
