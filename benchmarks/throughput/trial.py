"""What a trial of a sweep costs beside its steps.

`python -m benchmarks.throughput.trial` sweeps the demo's two tasks with one step each over learning rates, one trial
after another, so that every trial trains and scores both stages anew. The first trial, which starts the cluster's
processes and reads the data, is left out.
"""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides, start
from continual.ledger.ledger import read_ledger
from continual.ledger.lines import read_lines

GOAL = 25.0
"""Seconds beside the steps."""
TRIALS = 4
SWEEP = "name: trials\nsequence: {sequence}\nspace:\n  train.learning_rate: {{grid: {rates}}}\n"


def trials(count: int) -> list[sides.Numbers]:
    """Run a sweep; return what each trial but the first took from the end of the one before, and of it its steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, storage = folder / "sweep.yaml", folder / "runs"
        file.write_text(SWEEP.format(sequence=start.SEQUENCE, rates=[(1 + number) / 1000 for number in range(count)]))
        start.timed("-m", "continual.tune", str(file), f"storage={storage}", *start.SHORT)
        ended = []
        for run in storage.glob("*/ledger.jsonl"):
            records = [record for lines in run.parent.glob("stages/*/metrics.jsonl") for record in read_lines(lines)]
            [end] = [event["time"] for event in read_ledger(run.parent).all("ended")]
            ended.append((end, sum(record["seconds"] for record in records)))
    if len(ended) != count:
        raise SystemExit(f"{len(ended)} of {count} trials have ended")
    return [
        {"seconds": end - before, "steps": steps, "fixed": end - before - steps}
        for (before, _), (end, steps) in itertools.pairwise(sorted(ended))
    ]


def measure(count: int) -> dict[str, Any]:
    each = trials(count)
    return {"goal": GOAL, "trials": each, "fixed": statistics.median(one["fixed"] for one in each)}


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| trial | s | beside its steps, s |", "|---|---|---|"]
    lines += [
        f"| {number} | {one['seconds']:.1f} | {one['fixed']:.1f} |" for number, one in enumerate(results["trials"], 2)
    ]
    lines.append(f"| median (goal: below {results['goal']:.0f}) | | {results['fixed']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    given = parser.parse_args()
    results = measure(given.trials)
    sides.write(results, table(results), given.output, "trial")


if __name__ == "__main__":
    main()
