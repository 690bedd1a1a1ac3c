"""What reading rows costs a worker as the stored set grows: waits for data beside a step's time, and memory.

`python -m benchmarks.throughput.reading` stores sets of rows of the demo's width and reads shuffled batches of each in
a fresh process, as a worker of Ray Train does, with a step of the demo's model in between. Memory is what the processes
that read have for themselves alone; pages of mapped files are the system's to take back.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.throughput import sides

ROWS = (10_000, 100_000, 1_000_000, 3_000_000)
ROW_TOKENS = 68
ROWS_PER_STEP = 64
SHARD_ROWS = 10_000
STEPS, WARM_UP = 180, 20
"""Steps that are measured, and those before them, in which processes start."""
WAIT_GOAL = 0.02
FLAT = 1.1
"""Of the memory with the smallest set."""


def store_rows(folder: Path, count: int) -> None:
    """Write a set of `count` rows into a new store."""
    from continual.data.rows import row_facts, rows_table
    from continual.store import Store

    store, inputs, rng = Store(folder), {"rows": count}, np.random.default_rng(0)
    with store.write(store.artefact("rows", inputs), inputs) as writer:
        assert writer is not None
        for shard in range(-(-count // SHARD_ROWS)):
            size = (min(SHARD_ROWS, count - shard * SHARD_ROWS), ROW_TOKENS)
            rows = {
                "ids": rng.integers(1, 19, size, np.int32),
                "positions": np.broadcast_to(np.arange(ROW_TOKENS, dtype=np.int32), size),
                "weights": np.ones(size, np.float32),
                "documents": np.zeros(size, np.int32),
            }
            writer.put(shard, rows_table(rows), **row_facts(rows))
        writer.finish()


def read(folder: Path, count: int, steps: int) -> sides.Numbers:
    """Train on the set in `folder`; return the waits, the seconds and the memory of those who read."""
    import ray
    import torch

    from benchmarks.arithmetic.model import build
    from continual.contract.stream import Stream
    from continual.run.cluster import LOCAL_SYSTEM
    from continual.store import Store
    from continual.training.ingest import ordered_batches
    from continual.training.losses.kinds import Nll

    environment = {"env_vars": {"PYTHONPATH": str(sides.ROOT)}}
    ray.init(
        address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False,
        runtime_env=environment, _system_config=dict(LOCAL_SYSTEM),
    )  # fmt: skip
    rows = Store(folder).artefact("rows", {"rows": count})
    stream = Stream("task", rows, Nll(), shuffle=True, rows_per_step=ROWS_PER_STEP)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    waited, since = 0.0, time.perf_counter()
    begin = since
    for number, batch in enumerate(ordered_batches([stream], 0, range(WARM_UP + steps), 0, 1)):
        arrived = time.perf_counter()
        if number < WARM_UP:
            waited, begin = 0.0, arrived
        else:
            waited += arrived - since
        ids = torch.as_tensor(batch["task/ids"][0].astype(np.int64))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        since = time.perf_counter()
    seconds = since - begin
    return {"wait": waited / seconds, "step": seconds / steps, "mib": own_mib()}


def own_mib() -> float:
    """Return the private memory of this process and the tasks of Ray that it started, in MiB."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            if process == me or process.name().startswith("ray::"):
                total += process.memory_full_info().uss - mapped_alone(process)
        except psutil.Error:  # has ended
            continue
    return total / 2**20


def mapped_alone(process: psutil.Process) -> int:
    """Return the bytes of shards that only this process maps: they are part of its private memory."""
    return sum(part.private_clean for part in process.memory_maps() if part.path.endswith(".arrow"))


def measure(counts: Sequence[int], rounds: int, steps: int = STEPS) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        sizes: dict[str, Callable[[], sides.Numbers]] = {}
        for count in counts:
            store_rows(Path(name) / str(count), count)
            each = ("--folder", f"{name}/{count}", "--rows", str(count), "--steps", str(steps))
            sizes[f"{count}"] = partial(sides.in_process, "benchmarks.throughput.reading", *each)
        found = sides.alternate(sizes, rounds)
    least, most = str(min(counts)), str(max(counts))
    return {
        "goals": {"wait": WAIT_GOAL, "memory": FLAT},
        "sides": sides.summary(found),
        "memory": sides.ratio(found, "mib", most, least),
    }


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| rows | a step, ms | of it waiting for data | memory, MiB |", "|---|---|---|---|"]
    for count, numbers in results["sides"].items():
        of = numbers["median"]
        lines.append(f"| {int(count):,} | {1000 * of['step']:.1f} | {of['wait']:.2%} | {of['mib']:.0f} |")
    memory = results["memory"]["median"]
    return "\n".join([*lines, "", f"Memory with the most rows: {memory:.2f} of that with the fewest."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=ROWS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        print(f"\n{json.dumps(read(given.folder, given.rows, given.steps))}")
        sys.exit()
    results = measure(given.counts, given.rounds, given.steps)
    sides.write(results, table(results), given.output, "reading")


if __name__ == "__main__":
    main()
