"""What a run has done already, read from its folder without disturbing a driver that works there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.forgetting import are_rows
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import read_ledger
from continual.store.json_files import has, known_json


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
        finished=known_json(RunFolder(run_folder).summary, is_summary).get("status") == "done",
        begun=any(event["event"] != "run" for event in ledger.events),
        done={event["stage"]: event for event in ledger.all("stage_done")},
        prepared={event["stage"]: event for event in ledger.all("prepared")},
    )


def counted(store: Path, kind: str, hashes: list[str], count: str) -> int | None:
    """Return a count summed over stored artefacts; None unless all of them are complete."""
    manifests = [known_json(store / kind / name / "manifest.json", has(counts=dict)) for name in hashes]
    values = [manifest.get("counts", {}).get(count) for manifest in manifests]
    return sum(values) if all(isinstance(value, int) for value in values) else None


def is_summary(value: Any) -> bool:
    """Return whether a value of JSON is a run's summary."""
    if not has(status=str, stages=list, unit=dict)(value) or not are_rows(value.get("matrix")):
        return False
    units = value["unit"]
    measured = all(row["scores"].keys() <= units.keys() for row in value["matrix"])
    return measured and all(isinstance(unit, str) for unit in units.values()) and _is_measured_to_its_end(value)


def _is_measured_to_its_end(summary: dict[str, Any]) -> bool:
    """Return whether the last row of a finished run has a score of everything that was measured."""
    if summary["status"] != "done":
        return True
    return bool(summary["matrix"]) and summary["matrix"][-1]["scores"].keys() >= summary["unit"].keys()
