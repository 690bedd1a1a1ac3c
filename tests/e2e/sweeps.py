"""`python -m continual.tune` as users type it, and what a sweep leaves in its storage."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.e2e import command

BASE = ROOT / "tests" / "e2e" / "sweep-base.yaml"


def arguments(sweep: Path, storage: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "continual.tune", str(sweep), f"storage={storage}", *more]


def tune(sweep: Path, storage: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(sweep, storage, *more),
        cwd=ROOT, env=command.environment(), capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def start(sweep: Path, storage: Path, *more: str) -> command.Driver:
    storage.mkdir(parents=True, exist_ok=True)
    output = storage / f"driver-{time.monotonic_ns()}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            arguments(sweep, storage, *more), cwd=ROOT, env=command.environment(),
            stdout=file, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    return command.Driver(process, output)


def write(folder: Path, **sweep: Any) -> Path:
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({"sequence": str(BASE), **sweep}, sort_keys=False))
    return path


def result(storage: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((storage / name / "sweep.json").read_text())
    return content


def ledgers(storage: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the events of every trial's run, by the run's name."""
    return {
        # The last line may be incomplete while the driver is still running.
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        for path in storage.glob(f"{name}-*/ledger.jsonl")
    }


def happened(storage: Path, name: str, event: str) -> list[dict[str, Any]]:
    return [line for lines in ledgers(storage, name).values() for line in lines if line["event"] == event]


def manifests(storage: Path, kind: str) -> list[Path]:
    return sorted((storage / "store" / kind).glob("*/manifest.json"))


def in_training(storage: Path, name: str, stage: str, step: int) -> Callable[[], bool]:
    """Return whether some trial is training that stage and has published a checkpoint at `step` or later."""

    def reached() -> bool:
        return any(
            int(path.name.removeprefix("step-")) >= step
            for path in storage.glob(f"{name}-*/stages/{stage}/checkpoints/step-*")
        )

    return reached
