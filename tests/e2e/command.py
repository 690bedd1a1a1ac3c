"""The command line as users type it, in a process of its own, and the ways to disturb it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}


def arguments(storage: Path, *overrides: str, yaml: Path | None = TINY, module: str = "run") -> list[str]:
    """The command; without `yaml` the overrides name it, as those of `continual.forecast` do."""
    named = [] if yaml is None else [str(yaml)]
    return [sys.executable, "-m", f"continual.{module}", *named, f"storage={storage}", *overrides]


def environment() -> dict[str, str]:
    """This process's, without the address of anybody's cluster."""
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | ENVIRONMENT


def run(
    storage: Path, *overrides: str, yaml: Path | None = TINY, module: str = "run", timeout: float = 1500
) -> subprocess.CompletedProcess[str]:
    """Run to the end; output is captured, as text."""
    return subprocess.run(
        arguments(storage, *overrides, yaml=yaml, module=module),
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@dataclass
class Driver:
    """A run in the background, to be disturbed. `output` is its file of stdout and stderr."""

    process: subprocess.Popen[str]
    output: Path

    def wait_for(self, condition: Callable[[], bool], timeout: float = 1200) -> None:
        """Until the condition holds; fails if the driver ends first."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"the driver ended first:\n{self.output.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.output.read_text()[-3000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9 the driver alone; what it started has to notice by itself."""
        self.process.kill()
        self.process.wait()

    def interrupt(self, timeout: float = 300) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout)


def start(storage: Path, *overrides: str, yaml: Path | None = TINY, module: str = "run") -> Driver:
    storage.mkdir(parents=True, exist_ok=True)
    output = storage / f"driver-{time.monotonic_ns()}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            arguments(storage, *overrides, yaml=yaml, module=module), cwd=ROOT, env=environment(),
            stdout=file, stderr=subprocess.STDOUT, text=True, process_group=0,
        )  # fmt: skip
    return Driver(process, output)


def summary(storage: Path, name: str = "tiny") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((storage / name / "summary.json").read_text())
    return found


def records(storage: Path, stage: str, name: str = "tiny") -> list[dict[str, Any]]:
    path = storage / name / "stages" / stage / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def steps_done(storage: Path, stage: str, name: str = "tiny") -> int:
    path = storage / name / "stages" / stage / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def events(storage: Path, event: str, name: str = "tiny") -> list[dict[str, Any]]:
    path = storage / name / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if line["event"] == event]


def copy_store(source: Path, storage: Path) -> None:
    """A store with all but its trained stages, which a run would take over instead of training."""
    shutil.copytree(source / "store", storage / "store", ignore=shutil.ignore_patterns("stages"))


def essence(storage: Path, name: str = "tiny") -> dict[str, Any]:
    """What must not depend on kills and resumes: rows and losses of every step, scores, weights, store contents."""
    found: dict[str, Any] = {}
    for stage in ("1-reversal", "2-sort"):
        steps = records(storage, stage, name)
        found[stage] = [[r["step"], r["rows"], r["loss"], r.get("drift"), r["gradient_norm"]] for r in steps]
    found["weights"] = [event["hash"] for event in events(storage, "stage_done", name)]
    found["matrix"] = summary(storage, name)["matrix"]
    manifests = [json.loads(path.read_text()) for path in (storage / "store").glob("*/*/manifest.json")]
    kept = ("rows", "samples", "models")
    found["store"] = sorted([m["kind"], m["hash"], m["content"]] for m in manifests if m["kind"] in kept)
    return found
