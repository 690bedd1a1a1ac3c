"""A worker's optimizer step against that of a bare PyTorch loop, on the same packed rows.

`python -m benchmarks.throughput.training` trains a model of 260 thousand parameters, and one of 23 million, in the
`Stepper` of a worker and in a plain loop: the model's own forward pass, cross-entropy, clipping, AdamW. The worker
computes attention as on CPUs by default, document by document, and once more with transformers' mask as the plain loop
does. All are in one process and take turns step by step; each round is a fresh process.
"""

import argparse
import json
import os
import sys
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides

CONTINUAL, MASKED, BARE = "continual", "continual, with the bare loop's mask", "bare loop"
GOALS = {"260k": 0.98, "23M": 1.0}
BATCHES = 4
"""Different batches, read again and again."""


def both(name: str, tiny: bool) -> dict[str, sides.Numbers]:
    """Return seconds of a step and tokens per second of all sides, in this process, one thread each."""
    import torch

    from benchmarks.throughput import steps
    from continual.models.attention import SDPA
    from continual.training.losses.kinds import Nll

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    case = steps.CASES[name].tiny() if tiny else steps.CASES[name]
    streams = [steps.stream("task", Nll(), case.rows)]
    ours = steps.our_step(case.model(), case.train, streams)
    masked = steps.our_step(case.model(), case.train, streams, attention=SDPA)
    bare = steps.bare_step(case.model(), case.train)
    batches = [case.batch(seed) for seed in range(BATCHES)]
    mine, same, others = cycle(batches), cycle(batches), cycle(batches)
    taken = {
        CONTINUAL: lambda: ours({"task": next(mine)}),
        MASKED: lambda: masked({"task": next(same)}),
        BARE: lambda: bare(next(others)),
    }
    found = sides.taking_turns(taken, case.steps)
    return {side: numbers | {"rate": case.tokens / numbers["seconds"]} for side, numbers in found.items()}


def measure(rounds: int, tiny: bool = False) -> dict[str, Any]:
    results = {}
    for name in GOALS:
        each = ("--model", name, *["--tiny"] * tiny)
        found = sides.rounds(partial(sides.together, "benchmarks.throughput.training", *each), rounds, name)
        results[name] = {
            "sides": sides.summary(found),
            "rate": sides.ratio(found, "rate", CONTINUAL, BARE),
            "masked": sides.ratio(found, "rate", MASKED, BARE),
        }
    return {"goals": GOALS, "models": results}


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = [
        "| model | continual, tokens/s | bare loop, tokens/s | ratio | goal | ratio with the bare loop's mask |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["models"].items():
        mine, bare = (found["sides"][side]["median"]["rate"] for side in (CONTINUAL, BARE))
        lines.append(
            f"| {name} | {mine:,.0f} | {bare:,.0f} | {sides.words(found['rate'])} | ≥ {GOALS[name]} "
            f"| {sides.words(found['masked'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="at a size that says nothing")
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--model", choices=list(GOALS), help="measure one round of this model and print its numbers")
    given = parser.parse_args()
    if given.model:
        print(f"\n{json.dumps(both(given.model, given.tiny))}")
        sys.exit()
    results = measure(given.rounds, given.tiny)
    sides.write(results, table(results), given.output, "training")


if __name__ == "__main__":
    main()
