"""A stage that trains while its samples are made, against the longer of sampling alone and training alone.

`python -m benchmarks.throughput.stream` alternates between `generate.delivery: store`, whose two phases are those
sides, and `stream`, with one thread for the engine and one for the training.
"""

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides, start
from continual.ledger.ledger import read_ledger

GOAL = 1.15
"""On separate resources."""
NAME = "stream"
OVERRIDES = (
    f"name={NAME}", "track.enabled=false", "stages.0.steps=20", "stages.1.steps=200", "train.warmup_steps=0",
    "train.cpus_per_worker=0.4", "generate.cpus_per_replica=0.5", "mitigation.0.samples=null", "evaluate.overlap=false",
)  # fmt: skip


def stage(delivery: str) -> sides.Numbers:
    """Run the demo's sequence in a new storage; return the seconds of the second stage's phases."""
    with tempfile.TemporaryDirectory() as storage:
        run = ("-m", "continual.run", str(start.SEQUENCE), f"storage={storage}", f"generate.delivery={delivery}")
        start.timed(*run, *OVERRIDES)
        phases = {
            event["phase"]: event["seconds"]
            for event in read_ledger(Path(storage) / NAME).all("phase")
            if event["stage"] == 2
        }
    sampling, training = phases["mitigate"], phases["train"]
    return {"sampling": sampling, "training": training, "stage": sampling + training, "longer": max(sampling, training)}


def measure(rounds: int) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = "1"
    found = sides.alternate({delivery: partial(stage, delivery) for delivery in ("store", "stream")}, rounds)
    longest = [
        numbers["stage"] / longer["longer"] for numbers, longer in zip(found["stream"], found["store"], strict=True)
    ]
    return {
        "goal": GOAL,
        "sides": sides.summary(found),
        "of the longer part": {"median": statistics.median(longest), "rounds": longest},
        "of store": sides.ratio(found, "stage", "stream", "store"),
    }


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| delivery | before the training, s | training, s | both, s |", "|---|---|---|---|"]
    for side, numbers in results["sides"].items():
        median = numbers["median"]
        lines.append(f"| {side} | {median['sampling']:.1f} | {median['training']:.1f} | {median['stage']:.1f} |")
    lines += ["", f"`stream` takes {results['of the longer part']['median']:.2f} of the longer part of `store` (goal: "
              f"{GOAL}), and {results['of store']['median']:.2f} of all of it."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    given = parser.parse_args()
    results = measure(given.rounds)
    sides.write(results, table(results), given.output, "stream")


if __name__ == "__main__":
    main()
