"""The goals of the throughput measurements, and the table of what was last measured against them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides
from benchmarks.throughput.ray_training import WORKERS

CONSTANT = 2.0
"""What a cost may rise by, from a size to a hundred times it, and count as constant: caches and disks vary by that."""

Found = dict[str, Any]
"""A results file."""
Line = tuple[str, str, str, str, bool | None]
"""What is measured, against what, the goal, what was found, and whether it meets the goal; None without one."""


def sampling(found: Found) -> list[Line]:
    rate, start, goals = found["rate"]["median"], found["start"]["median"], found["goals"]
    least, most = goals["rate"], goals["start"]
    return [
        ("context-free sampling, tokens/s", "bare `vllm.LLM.generate`", f"≥ {least}", f"{rate:.2f}", rate >= least),
        ("its start, s", "the start of the bare engine", f"≤ {most}", f"{start:.2f}", start <= most),
    ]


def sampling_larger(found: Found) -> list[Line]:
    (_, against, goal, measured, met), _ = sampling(found)
    return [("context-free sampling of a model of 23M parameters, tokens/s", against, goal, measured, met)]


def _stream(where: str, found: Found) -> list[Line]:
    ratio, goal = found["of the longer part"]["median"], found["goal"]
    what = f"a stage that trains while its samples are made, {where}, s"
    against = "the longer of sampling and training alone"
    return [(what, against, f"≤ {goal}" if goal else "", f"{ratio:.2f}", ratio <= goal if goal else None)]


def stage(found: Found) -> list[Line]:
    ratio, goal = found["ratio"]["median"], found["goal"]
    what = "training of a second stage beside its steps, s"
    run, most = found["sides"]["continual"]["median"]["run"], found["run goal"]
    return [
        (what, "a bare `fit()`, the second one", f"≤ {goal}", f"{ratio:.2f}", ratio <= goal),
        ("a run of two stages of one step each", "", f"< {most:g} s", f"{run:.0f} s", run < most),
    ]


def trial(found: Found) -> list[Line]:
    seconds, goal = found["fixed"], found["goal"]
    return [("a trial of a sweep beside its steps", "", f"< {goal:g} s", f"{seconds:.1f} s", seconds < goal)]


def driver(found: Found) -> list[Line]:
    lines = []
    for sizes, part, what in (
        ("poll", "driver", "a poll of the driver, s"),
        ("poll", "tracker", "a poll of the tracker, s"),
        ("shards", "shard", "one more shard, s"),
        ("stages", "ledger", "the ledger of one more stage, s"),
        ("stages", "figures", "the figures after one more stage, s"),
    ):
        counts = sorted(found[sizes], key=int)
        few, many = int(counts[-1]) // 100, int(counts[-1])
        ratio = found[sizes][str(many)][part] / found[sizes][str(few)][part]
        unit = {"poll": "steps"}.get(sizes, sizes)
        against = f"the same with {few:,} {unit} instead of {many:,}"
        lines.append((what, against, "constant", f"{ratio:.2f}", ratio <= CONSTANT))
    return lines


def rows(found: Found) -> list[Line]:
    ratio = found["ratio"]["median"]
    what = f"tokenizing and packing {found['documents']:,} short documents, tokens/s"
    return [(what, "`datasets.map` and packing", "≥ 1.0", f"{ratio:.2f}", ratio >= 1)]


def start(found: Found) -> list[Line]:
    lines = []
    for side, goal in found["goals"].items():
        seconds = found["sides"][side]["median"]["seconds"]
        what = {"second run": "the same command again, all stored", "plan": "`--plan`"}[side]
        lines.append((what, "", f"< {goal:g} s", f"{seconds:.2f} s", seconds < goal))
    return lines


def reading(found: Found) -> list[Line]:
    counts = sorted(found["sides"], key=int)
    wait = max(found["sides"][count]["median"]["wait"] for count in counts)
    memory, goals = found["memory"]["median"], found["goals"]
    span = f"{int(counts[0]):,} to {int(counts[-1]):,} rows"
    return [
        (f"waiting for data, {span}", "the time of a step", f"< {goals['wait']:.0%}", f"{wait:.1%}",
         wait < goals["wait"]),
        (f"a worker's memory, {int(counts[-1]):,} rows", f"{int(counts[0]):,} rows", "flat", f"{memory:.2f}",
         memory <= goals["memory"]),
    ]  # fmt: skip


def training(found: Found) -> list[Line]:
    lines = []
    for model, goal in found["goals"].items():
        ratio = found["models"][model]["rate"]["median"]
        what = f"a training step, model of {model} parameters, tokens/s"
        lines.append((what, "a bare PyTorch loop on the same rows", f"≥ {goal}", f"{ratio:.3f}", ratio >= goal))
    return lines


def ray_training(found: Found) -> list[Line]:
    lines, goal = [], found["goal"]
    for model, of in found["models"].items():
        for side, ratio in of["rate"].items():
            if side not in WORKERS:
                continue
            what = f"training through Ray Train, {side}, model of {model} parameters, tokens/s"
            against = f"a bare PyTorch loop, {found['threads']} threads in all as well"
            lines.append((what, against, f"≥ {goal}", f"{ratio['median']:.2f}", ratio["median"] >= goal))
    return lines


def examples(found: Found) -> list[Line]:
    lines = []
    for side, goal in found["goals"].items():
        ratio = found["useful"][side]["median"]
        lines.append(("short examples, trained tokens/s", side, f"≥ {goal}", f"{ratio:.2f}", ratio >= goal))
    return lines


def replay(found: Found) -> list[Line]:
    lines = []
    for name, of in found["comparisons"].items():
        [against] = [side for side in of["sides"] if side not in ("kl", "topk")]
        for what, unit in (("time", "s"), ("memory", "MiB")):
            ratio, goal = of[what]["median"], of["goals"][what]
            words = {"plain": "no replay", "nll": "`nll` on the same rows"}[against]
            lines.append((f"a step with {name}, {unit}", words, f"≤ {goal}", f"{ratio:.2f}", ratio <= goal))
    return lines


def losses(found: Found) -> list[Line]:
    lines = []
    for kind, of in found["kinds"].items():
        for what, goal in found["goals"].items():
            ratio = of[what]["median"]
            name = f"`{kind}` alone, vocabulary {found['vocabulary']:,}, {what}"
            lines.append((name, "plain PyTorch", f"≤ {goal}", f"{ratio:.2f}", ratio <= goal))
    return lines


STREAMING: dict[str, Callable[[Found], list[Line]]] = {
    "sampling": sampling,
    "sampling_larger": sampling_larger,
    "stream": partial(_stream, "on two shared cores"),
    "stream_apart": partial(_stream, "engine and worker on nodes of their own"),
    "stream_nodes": partial(_stream, "workers on both of two nodes"),
    "stage": stage,
    "trial": trial,
    "driver": driver,
    "rows": rows,
    "start": start,
    "reading": reading,
}
"""By the name of the module that measures, in the order of the table: sampling, streaming, stages and the driver."""

TRAINING: dict[str, Callable[[Found], list[Line]]] = {
    "training": training,
    "ray_training": ray_training,
    "examples": examples,
    "replay": replay,
    "losses": losses,
}
"""The same for steps of the training."""

GOALS = STREAMING | TRAINING
BENCH = ["sampling", "stream_apart", "stage", "driver", "rows", "start", "reading"]
"""What `make bench` runs: half an hour on two cores."""


def table(results: Path = sides.RESULTS) -> str:
    """Return what was measured beside its goals as a Markdown table."""
    lines = [
        "| what | against | goal | measured | | module of `benchmarks.throughput` |",
        "|---|---|---|---|---|---|",
    ]
    for name, goals in GOALS.items():
        path = results / f"{name}.json"
        if not path.is_file():
            lines.append(f"| not measured yet | | | | | `{name}` |")
            continue
        for what, against, goal, measured, met in goals(json.loads(path.read_text())):
            verdict = {True: "met", False: "missed", None: ""}[met]
            lines.append(f"| {what} | {against} | {goal} | {measured} | {verdict} | `{name}` |")
    return "\n".join(lines)
