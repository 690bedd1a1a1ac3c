"""What a stage after the first costs beside its steps, against a run of Ray Train that does nothing.

`python -m benchmarks.throughput.stage` alternates, each in fresh processes, between the demo's two tasks with one step
each and a bare `TorchTrainer.fit()` of a function that returns at once; of two, the second is measured.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides, start
from continual.ledger.ledger import read_ledger
from continual.ledger.lines import read_lines

GOAL = 0.3
"""Of the time of the bare fit()."""
RUN_GOAL = 70.0
"""Seconds of the whole run."""
NAME = "demo-plain"


def stages() -> sides.Numbers:
    """Run two stages; return the seconds of all, of both trainings, and of the second one beside its step."""
    with tempfile.TemporaryDirectory() as storage:
        overrides = (f"storage={storage}", f"name={NAME}", *start.SHORT)
        all_of_it = start.timed("-m", "continual.run", str(start.SEQUENCE), *overrides)["seconds"]
        folder = Path(storage) / NAME
        train = {
            event["stage"]: event["seconds"] for event in read_ledger(folder).all("phase") if event["phase"] == "train"
        }
        steps = sum(record["seconds"] for record in read_lines(folder / "stages" / "2-sort" / "metrics.jsonl"))
    return {"run": all_of_it, "first training": train[1], "second training": train[2], "fixed": train[2] - steps}


def bare_fit() -> sides.Numbers:
    """Return the seconds of the second of two runs of Ray Train whose worker does nothing."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("one", "two"):
            begin = time.perf_counter()
            trainer = TorchTrainer(
                nothing,
                scaling_config=ScalingConfig(num_workers=1),
                run_config=RunConfig(name=name, storage_path=folder),
            )
            trainer.fit()
            seconds.append(time.perf_counter() - begin)
    return {"first fit": seconds[0], "fixed": seconds[1]}


def nothing() -> None:
    """The loop of a worker that has nothing to do."""


def measure(rounds: int) -> dict[str, Any]:
    of: dict[str, Callable[[], sides.Numbers]] = {
        "continual": stages,
        "fit": partial(sides.in_process, "benchmarks.throughput.stage", "--side", "fit"),
    }
    found = sides.alternate(of, rounds)
    return {
        "goal": GOAL,
        "run goal": RUN_GOAL,
        "sides": sides.summary(found),
        "ratio": sides.ratio(found, "fixed", "continual", "fit"),
    }


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    mine, bare = (results["sides"][side]["median"] for side in ("continual", "fit"))
    lines = ["| what | s |", "|---|---|"]
    lines += [f"| {name} | {mine[key]:.1f} |" for key, name in (
        ("run", "two stages of one step, all of it"),
        ("first training", "training of the first stage"),
        ("second training", "training of the second stage"),
        ("fixed", "of it beside its step"),
    )]  # fmt: skip
    lines.append(f"| bare `fit()`, the second | {bare['fixed']:.1f} |")
    lines.append(f"| ratio (goal: at most {GOAL}) | {results['ratio']['median']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--side", choices=["fit"], help="measure this side alone and print its numbers")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(bare_fit()))
        sys.exit()
    results = measure(given.rounds)
    sides.write(results, table(results), given.output, "stage")


if __name__ == "__main__":
    main()
