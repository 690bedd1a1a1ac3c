"""What a run has done already, read from its folder without disturbing a driver that works there."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Progress:
    """Events of the ledger by stage: `done` stages, and what was `prepared` for each. `finished`: nothing is left."""

    finished: bool = False
    begun: bool = False
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    prepared: dict[int, dict[str, Any]] = field(default_factory=dict)


def read_progress(run_folder: Path) -> Progress:
    """Progress of the run in a folder; of no run at all where there is none. Damaged lines are passed over."""
    found = Progress()
    try:
        lines = (run_folder / "ledger.jsonl").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            event = json.loads(line)
            kind, stage = event["event"], event.get("stage")
        except (ValueError, KeyError, TypeError):
            continue
        found.begun = found.begun or kind != "run"
        if kind in ("stage_done", "prepared"):
            (found.done if kind == "stage_done" else found.prepared)[stage] = event
    found.finished = _read(run_folder / "summary.json").get("status") == "done"
    return found


def newest_step(stage_folder: Path) -> int:
    """The step of the newest checkpoint in a stage's folder, 0 without one."""
    names = [path.name.removeprefix("step-") for path in (stage_folder / "checkpoints").glob("step-*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def counted(store: Path, kind: str, hashes: list[str], count: str) -> int | None:
    """A count summed over stored artefacts; None unless all of them are complete."""
    total = 0
    for name in hashes:
        counts = _read(store / kind / name / "manifest.json").get("counts", {})
        if count not in counts:
            return None
        total += int(counts[count])
    return total


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
