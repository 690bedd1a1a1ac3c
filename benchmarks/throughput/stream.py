"""A stage that trains while its samples are made, against the longer of sampling alone and training alone.

Each command alternates between `generate.delivery: store`, whose two phases are those sides, and `stream`, with one
thread for the engine and one for each worker:

- `python -m benchmarks.throughput.stream`: the engine and a worker share the two cores of one machine;
- `python -m benchmarks.throughput.stream_apart`: on two nodes of one core each, one has the engine, one a worker;
- `python -m benchmarks.throughput.stream_nodes`: on two such nodes, both have a worker, one of them the engine, too.
"""

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import nodes, sides, start
from continual.ledger.ledger import read_ledger

NAME = "stream"
OVERRIDES = (
    f"name={NAME}", "track.enabled=false", "stages.0.steps=20", "train.warmup_steps=0", "mitigation.0.samples=null",
    "evaluate.overlap=false",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Where the stage runs, and what it does.

    `goal`: what `stream` may take of the longer part; None: it is reported. `apart`: on two nodes of one core each.
    """

    goal: float | None
    apart: bool
    rounds: int
    steps: int
    overrides: tuple[str, ...]


SHARED = Setting(None, False, 1, 200, ("train.cpus_per_worker=0.4", "generate.cpus_per_replica=0.5"))
APART = Setting(1.15, True, 1, 1200, ("train.cpus_per_worker=2.2", "generate.cpus_per_replica=2.2"))
"""A node has 4 CPUs to reserve, so that there is room for one of them, and for Ray Data beside it."""
NODES = Setting(
    1.25, True, 1, 1800,
    ("train.workers=2", "train.cpus_per_worker=2.2", "generate.cpus_per_replica=0.5", "mitigation.0.ratio=0.0625"),
)  # fmt: skip
"""One replayed row per step beside 16 of the task: what the engine takes of a worker's core is then little."""


def stage(delivery: str, setting: Setting) -> sides.Numbers:
    """Run the demo's sequence in a new storage; return the seconds of the second stage's phases."""
    with ExitStack() as held:
        storage = held.enter_context(tempfile.TemporaryDirectory())
        environment = held.enter_context(nodes.two_of_one_core()) if setting.apart else None
        run = ("-m", "continual.run", str(start.SEQUENCE), f"storage={storage}", f"generate.delivery={delivery}")
        start.timed(*run, *OVERRIDES, f"stages.1.steps={setting.steps}", *setting.overrides, environment=environment)
        phases = {
            event["phase"]: event["seconds"]
            for event in read_ledger(Path(storage) / NAME).all("phase")
            if event["stage"] == 2
        }
    return numbers(phases["mitigate"], phases["train"])


def numbers(sampling: float, training: float) -> sides.Numbers:
    """Return the seconds before the training (with `store`, all of the sampling) and of it, both, and the longer."""
    return {"sampling": sampling, "training": training, "stage": sampling + training, "longer": max(sampling, training)}


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = "1"
    found = sides.alternate({delivery: partial(stage, delivery, setting) for delivery in ("store", "stream")}, rounds)
    both = zip(found["stream"], found["store"], strict=True)
    longest = [streamed["stage"] / stored["longer"] for streamed, stored in both]
    return {
        "goal": setting.goal,
        "steps": setting.steps,
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
    goal = f" (goal: {results['goal']})" if results["goal"] else ""
    lines += ["", f"`stream` takes {results['of the longer part']['median']:.2f} of the longer part of `store`{goal}, "
              f"and {results['of store']['median']:.2f} of all of it."]  # fmt: skip
    return "\n".join(lines)


def main(setting: Setting = SHARED, output: str = "stream") -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=setting.rounds)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    given = parser.parse_args()
    results = measure(setting, given.rounds)
    sides.write(results, table(results), given.output, output)


if __name__ == "__main__":
    main()
