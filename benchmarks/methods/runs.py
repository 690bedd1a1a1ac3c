"""Runs of the arms: each through the command line that users type, two at a time, resumed by the same command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.methods.arms import Mitigations, Sequence
from benchmarks.stories.lm_eval.documents import shared

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Arm:
    """One run: an arm of a sequence under a seed."""

    sequence: Sequence
    name: str
    mitigation: Mitigations
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def run_name(self) -> str:
        words = re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")
        return f"methods-{self.sequence.name}-{words}-seed{self.seed}"


@dataclass(frozen=True)
class Result:
    """What a run left: final scores, scores inside the last stage by step, candidates by name."""

    summary: dict[str, Any]
    curve: dict[int, dict[str, float]]

    def final(self, task: str) -> float:
        return float(self.summary["matrix"][-1]["scores"][task]["score"])

    def before(self, task: str) -> float:
        """The score with which the last stage began."""
        return float(self.summary["matrix"][-2]["scores"][task]["score"])

    def stderr(self, task: str) -> float:
        return float(self.summary["matrix"][-1]["scores"][task]["stderr"])


def command(arm: Arm, storage: Path) -> list[str]:
    found = [sys.executable, "-m", "continual.run", str(HERE / f"{arm.sequence.name}.yaml")]
    found += [f"name={arm.run_name}", f"storage={storage}", f"seed={arm.seed}", "train.cpus_per_worker=1"]
    if arm.sequence.name == "stories":
        found.append(f"model.source={shared() / 'models' / 'stories260k-hd32'}")
    return [*found, *arm.overrides, f"mitigation={json.dumps(arm.mitigation)}"]


def read(arm: Arm, storage: Path) -> Result:
    folder = storage / arm.run_name
    scores = sorted((folder / "stages" / arm.sequence.stage / "scores").glob("step-*.json"))
    curve = {
        int(path.stem.removeprefix("step-")): {
            task: value["score"] for task, value in json.loads(path.read_text())["scores"].items()
        }
        for path in scores
    }
    return Result(json.loads((folder / "summary.json").read_text()), curve)


def run_all(arms: Iterable[Arm], storage: Path, jobs: int, say: Callable[[str], None]) -> dict[str, str]:
    """Run what is missing; {run name: last line} of those that failed, which end nothing else."""
    listed, failed = list(arms), {}
    # One thread each: threads of several drivers wait for each other, and numbers must not depend on `jobs`.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def one(arm: Arm) -> tuple[Arm, int, str]:
        found = subprocess.run(command(arm, storage), cwd=ROOT, env=environment, capture_output=True, text=True)
        lines = (found.stderr or found.stdout).strip().splitlines()
        return arm, found.returncode, lines[-1] if lines else ""

    pool = ThreadPoolExecutor(jobs)
    try:
        for done, (arm, code, last) in enumerate(pool.map(one, listed), 1):
            if code:
                failed[arm.run_name] = last
            say(f"{done} of {len(listed)}: {arm.run_name}{f': failed: {last}' if code else ''}")
    finally:
        # After Ctrl-C nothing new begins; the drivers that run got it too, and end by themselves.
        pool.shutdown(cancel_futures=True)
    return failed
