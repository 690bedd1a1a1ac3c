"""What replay with a teacher costs in a worker's optimizer step: time, and memory at its peak.

`python -m benchmarks.throughput.replay` compares `kl` with a live teacher, one replay row per four of the task, with
the task alone; and `kl` with a cached teacher, of which the 64 likeliest tokens of a position are stored, with `nll` on
the same rows, as many as the task has. Times are of one process, in which both sides take turns step by step; memory
is measured in one process per side, from the start of building the model.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides

TOP_K = 64
BATCHES = 3
MEMORY_STEPS = 3


@dataclass(frozen=True)
class Comparison:
    """What is replayed on which model, and beside what; at most which ratios of time and memory are the goals.

    `share`: rows of the task per row of replay.
    """

    model: str
    of: str
    to: str
    share: int
    time: float
    memory: float


COMPARISONS = {
    "kl, live teacher, 260k": Comparison("260k", "kl", "plain", 4, 1.3, 1.2),
    "kl, live teacher, 23M": Comparison("23M", "kl", "plain", 4, 1.3, 1.2),
    "kl, cached, vocabulary 512": Comparison("260k", "topk", "nll", 1, 1.05, 1.05),
    "kl, cached, vocabulary 131,072": Comparison("131k", "topk", "nll", 1, 1.05, 1.05),
}


def step_of(of: Comparison, replay: str, tiny: bool) -> tuple[Callable[[], object], int]:
    """Return a step with a kind of replay, or `plain` without, and how many are to be measured."""
    import torch

    from benchmarks.throughput import steps
    from continual.training.losses.kinds import Kl, Nll, TopK

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    cases = {**steps.CASES, "131k": steps.Case("131k", 4, 256, 128, 8)}
    case = cases[of.model].tiny() if tiny else cases[of.model]
    rows = case.rows // of.share
    streams = [steps.stream("task", Nll(), case.rows)]
    batches = [{"task": case.batch(seed)} for seed in range(BATCHES)]
    if replay != "plain":
        loss = next(kind() for kind in (Kl, TopK, Nll) if kind.name == replay)
        streams.append(steps.stream("replay", loss, rows))
        for seed, batch in enumerate(batches):
            batch["replay"] = case.batch(BATCHES + seed, rows)
            if replay == "topk":
                batch["replay"] |= steps.likeliest(batch["replay"], case.vocabulary, TOP_K)
    ours = steps.our_step(case.model(), case.train, streams, case.model(1) if replay == "kl" else None)
    endless = cycle(batches)
    return lambda: ours(next(endless)), case.steps


def both(name: str, tiny: bool) -> dict[str, sides.Numbers]:
    """Return seconds of a step of both sides of a comparison, in this process."""
    of = COMPARISONS[name]
    made = {side: step_of(of, side, tiny) for side in (of.of, of.to)}
    return sides.taking_turns({side: step for side, (step, _) in made.items()}, made[of.to][1])


def memory(name: str, side: str, tiny: bool) -> sides.Numbers:
    """Return by how many MiB this process grows when it makes some steps of one side, beyond a first tiny model's."""
    step_of(COMPARISONS[name], side, True)[0]()

    def act() -> None:
        step, _ = step_of(COMPARISONS[name], side, tiny)
        for _ in range(MEMORY_STEPS):
            step()

    return {"mib": sides.peak_mib(act)}


def one_round(each: tuple[str, ...]) -> dict[str, sides.Numbers]:
    """Return seconds and MiB of both sides of a comparison, given the module and the arguments that name it."""
    found = sides.together(*each)
    return {side: numbers | sides.in_process(*each, "--memory", side) for side, numbers in found.items()}


def measure(count: int, tiny: bool = False) -> dict[str, Any]:
    results = {}
    for name, of in COMPARISONS.items():
        each = ("benchmarks.throughput.replay", *["--tiny"] * tiny, "--comparison", name)
        found = sides.rounds(partial(one_round, each), count, name)
        results[name] = {
            "goals": {"time": of.time, "memory": of.memory},
            "sides": sides.summary(found),
            "time": sides.ratio(found, "seconds", of.of, of.to),
            "memory": sides.ratio(found, "mib", of.of, of.to),
        }
    return {"comparisons": results}


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| what | beside | ms | time | goal | MiB | memory | goal |", "|---|---|---|---|---|---|---|---|"]
    for name, found in results["comparisons"].items():
        of = COMPARISONS[name]
        mine = found["sides"][of.of]["median"]
        lines.append(
            f"| {name} | {of.to} | {1000 * mine['seconds']:.0f} | {sides.words(found['time'])} | ≤ {of.time} "
            f"| {mine['mib']:.0f} | {sides.words(found['memory'])} | ≤ {of.memory} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="at a size that says nothing")
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--comparison", choices=list(COMPARISONS), help="measure one round of it and print its numbers")
    parser.add_argument("--memory", metavar="SIDE", help="of the comparison, measure the memory of this side instead")
    given = parser.parse_args()
    if given.comparison:
        of = given.comparison
        print(f"\n{json.dumps(memory(of, given.memory, given.tiny) if given.memory else both(of, given.tiny))}")
        sys.exit()
    results = measure(given.rounds, given.tiny)
    sides.write(results, table(results), given.output, "replay")


if __name__ == "__main__":
    main()
