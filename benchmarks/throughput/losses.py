"""Losses with their gradients at a vocabulary of 131,072, against plain PyTorch: time, and memory at its peak.

`python -m benchmarks.throughput.losses` lets a worker's `LossModule` and a plain cross-entropy or `kl_div` of
all logits at once go forward and back from hidden states through the head: a Llama without layers, whose embeddings
are frozen. Times are of one process, in which both sides take turns; each side's memory is that of a process of its
own, from where the model and its gradients are there. One of them takes about 8 GiB.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides

CONTINUAL, PLAIN = "continual", "plain PyTorch"
KINDS = ("nll", "kl")
GOALS = {"time": 1.0, "memory": 0.3}
HEAD: dict[str, Any] = {
    "vocab_size": 131_072, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 0,
    "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip
ROWS, ROW_TOKENS = 4, 512
STEPS = 5
TINY = {"vocab_size": 64}, 8, 2
"""The same of a tiny head: what is different of it, tokens of a row, steps."""


def step_of(kind: str, side: str, tiny: bool) -> tuple[Callable[[], float], int]:
    """Return one way forward and back of a side, and how many are to be measured."""
    import torch
    from torch.nn import functional

    from benchmarks.throughput import shapes, steps
    from continual.config.schema import Train
    from continual.training.losses.kinds import Kl, Nll
    from continual.training.module import LossModule
    from continual.training.resources import chunk_positions

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    changes, row_tokens, count = TINY if tiny else ({}, ROW_TOKENS, STEPS)
    model, teacher = (shapes.llama(HEAD | changes, seed) for seed in range(2))
    model.get_input_embeddings().requires_grad_(False)
    teacher.eval().requires_grad_(False)
    rows = steps.packed(ROWS, row_tokens, model.config.vocab_size, row_tokens, 0)
    module = LossModule(model.train(), chunk_positions(Train(), model.config.vocab_size), None)

    predict = (steps.targets(rows) >= 0).flatten()

    def logits_of(one: Any) -> Any:
        hidden = one.model(input_ids=rows["ids"], position_ids=rows["positions"], use_cache=False).last_hidden_state
        return one.lm_head(hidden.flatten(0, 1)[predict])

    def plain() -> Any:
        if kind == "nll":
            return functional.cross_entropy(logits_of(model), steps.targets(rows).flatten()[predict], reduction="sum")
        log_p, log_q = (functional.log_softmax(logits_of(one), -1) for one in (teacher, model))
        return functional.kl_div(log_q, log_p, reduction="sum", log_target=True)

    def ours() -> Any:
        return module(**rows, loss=Kl(), teacher=teacher) if kind == "kl" else module(**rows, loss=Nll())

    def step() -> float:
        total = ours() if side == CONTINUAL else plain()
        total.backward()
        return float(total.detach())

    return step, count


def both(kind: str, tiny: bool) -> dict[str, sides.Numbers]:
    """Return the seconds of both sides, in this process."""
    made = {side: step_of(kind, side, tiny) for side in (CONTINUAL, PLAIN)}
    return sides.taking_turns({side: step for side, (step, _) in made.items()}, made[PLAIN][1], warm_up=1)


def memory(kind: str, side: str, tiny: bool) -> sides.Numbers:
    """Return by how many MiB this process grows while a side goes forward and back, when gradients are there."""
    step, _ = step_of(kind, side, tiny)
    step()
    return {"mib": sides.peak_mib(step)}


def measure(count: int, tiny: bool = False) -> dict[str, Any]:
    results = {}
    for kind in KINDS:
        each = ("benchmarks.throughput.losses", *["--tiny"] * tiny, "--kind", kind)
        found = sides.rounds(partial(sides.together, *each), count, kind)
        for side in found:
            grown = sides.in_process(*each, "--memory", side)
            found[side] = [numbers | grown for numbers in found[side]]
            print(f"{kind}, {side}: {grown['mib']:.0f} MiB", file=sys.stderr)
        results[kind] = {
            "sides": sides.summary(found),
            "time": sides.ratio(found, "seconds", CONTINUAL, PLAIN),
            "memory": sides.ratio(found, "mib", CONTINUAL, PLAIN),
        }
    return {"goals": GOALS, "vocabulary": HEAD["vocab_size"], "tokens": ROWS * ROW_TOKENS, "kinds": results}


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| loss | s | plain PyTorch, s | ratio | MiB | plain, MiB | ratio |", "|---|---|---|---|---|---|---|"]
    for kind, found in results["kinds"].items():
        mine, plain = (found["sides"][side]["median"] for side in (CONTINUAL, PLAIN))
        lines.append(
            f"| {kind} | {mine['seconds']:.2f} | {plain['seconds']:.2f} | {sides.words(found['time'])} "
            f"| {mine['mib']:.0f} | {plain['mib']:.0f} | {found['memory']['median']:.2f} |"
        )
    return "\n".join([*lines, "", f"Goals: {GOALS['time']} of the time, {GOALS['memory']} of the memory."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="at a size that says nothing")
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--kind", choices=KINDS, help="measure one round of it and print its numbers")
    parser.add_argument("--memory", metavar="SIDE", help="of the kind, measure the memory of this side instead")
    given = parser.parse_args()
    if given.kind:
        of = given.kind
        print(f"\n{json.dumps(memory(of, given.memory, given.tiny) if given.memory else both(of, given.tiny))}")
        sys.exit()
    results = measure(given.rounds, given.tiny)
    sides.write(results, table(results), given.output, "losses")


if __name__ == "__main__":
    main()
