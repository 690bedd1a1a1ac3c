"""How soon the command line answers: for a run that is stored, for a plan, and for nothing but Python.

`python -m benchmarks.throughput.start` finishes the demo's two tasks with one step each (about a minute), and then
alternates between the same command again, its `--plan`, and a bare start of Python.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides

SEQUENCE = sides.ROOT / "benchmarks" / "arithmetic" / "demo.yaml"
SHORT = ("mitigation=[]", "stages.0.steps=1", "stages.1.steps=1", "train.warmup_steps=0", "track.enabled=false")
GOALS = {"second run": 1.0, "plan": 1.5}
"""Seconds that the commands may take."""
PYTHON = "python"


def timed(*command: str, environment: Mapping[str, str] | None = None) -> sides.Numbers:
    """Run Python with these arguments, and return how long it took; its last line says why if it fails."""
    # A machine that keeps no bytecode would compile all modules in every round.
    given = os.environ if environment is None else environment
    environment = {name: value for name, value in given.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=sides.ROOT, env=environment, check=False, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {"seconds": seconds}


def commands(
    storage: Path, sequence: Path = SEQUENCE, overrides: tuple[str, ...] = SHORT
) -> dict[str, tuple[str, ...]]:
    """Return the arguments of Python for each side."""
    run = ("-m", "continual.run", str(sequence), f"storage={storage}", *overrides)
    return {"second run": run, "plan": (*run, "--plan"), PYTHON: ("-c", "pass")}


def measure(rounds: int, of: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    found = sides.alternate({name: partial(timed, *command) for name, command in of.items()}, rounds)
    return {
        "goals": GOALS,
        "sides": sides.summary(found),
        "times of python": {name: sides.ratio(found, "seconds", name, PYTHON) for name in of if name != PYTHON},
    }


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| command | s | worst | goal |", "|---|---|---|---|"]
    for side, numbers in results["sides"].items():
        goal = f"{GOALS[side]:.1f}" if side in GOALS else ""
        worst = max(one["seconds"] for one in numbers["rounds"])
        lines.append(f"| {side} | {numbers['median']['seconds']:.2f} | {worst:.2f} | {goal} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        of = commands(Path(storage))
        timed(*of["second run"])
        results = measure(given.rounds, of)
    sides.write(results, table(results), given.output, "start")


if __name__ == "__main__":
    main()
