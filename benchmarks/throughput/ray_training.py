"""Steps of the workers of a run, under Ray Train and with their data stream, against a bare PyTorch loop.

`python -m benchmarks.throughput.ray_training` trains the models of `benchmarks.throughput.training` on rows in a store:
with one worker of two threads, with two workers of one thread, and in a plain loop of two threads that has the same
rows in its memory. Workers compute attention as on CPUs by default, document by document; the plain loop makes
transformers' mask. A loop of a worker's own steps, without Ray, tells what Ray Train costs. Each side is a fresh
process. What counts are the steps after the first ones, from record to record.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides
from benchmarks.throughput.training import BARE

THREADS = 2
"""Threads of each side, in all."""
WORKERS = {"1 worker": 1, "2 workers": 2}
STEPS = "a worker's steps without Ray"
MODELS = ("260k", "23M")
GOAL = 0.95
WARM_UP = 10
"""Steps before those that are measured, in which processes start."""
SEED = 0


def store_rows(folder: Path, rows: Any) -> Any:
    """Write packed rows (arrays by column) into a new store in `folder`; return the artefact."""
    from continual.data.rows import row_facts, rows_table
    from continual.store import Store

    store, inputs = Store(folder), {"rows": len(rows["ids"])}
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        writer.put(0, rows_table(rows), **row_facts(rows))
        writer.finish()
    return artefact


def store_model(folder: Path, model: Any) -> Any:
    """Write a model with a tokenizer of a few words; return what names it."""
    from continual.contract.models import ModelRef
    from continual.models import model_hash

    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return ModelRef(str(folder), model_hash(folder))


def tokenizer() -> Any:
    """Return a tokenizer that no side uses, and all want."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<end>": 0, "<unknown>": 1}, "<unknown>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


def job_of(folder: Path, case: Any, rows: Any, workers: int) -> Any:
    """Return the job of a stage of plain training on stored rows."""
    from continual.contract.stream import Stream
    from continual.models.attention import BY_DOCUMENT
    from continual.training.job import TASK, TrainJob
    from continual.training.losses.kinds import Nll

    train = case.train.model_copy(update={"workers": workers, "checkpoint_every": 10**6})
    model = store_model(folder / "model", case.model())
    stream = Stream(TASK, rows, Nll(), shuffle=True, rows_per_step=case.rows)
    count = WARM_UP + case.steps
    threads = THREADS // workers
    return TrainJob(
        folder / "stage", model, model.path, (stream,), train, count, SEED, threads=threads, attention=BY_DOCUMENT
    )


def trained(folder: Path, case: Any, rows: Any, workers: int) -> sides.Numbers:
    """Train by the workers of a run; return seconds of a step, tokens and trained tokens per second."""
    import ray

    from continual.ledger.lines import read_lines
    from continual.run.cluster import LOCAL_SYSTEM
    from continual.training.launch import Workers
    from continual.training.resources import worker_cpus

    environment = {"env_vars": {"PYTHONPATH": str(sides.ROOT)}}
    ray.init(
        address="local", num_cpus=THREADS, include_dashboard=False, log_to_driver=False, runtime_env=environment,
        _system_config=dict(LOCAL_SYSTEM),
    )  # fmt: skip
    job = job_of(folder, case, rows, workers)
    with Workers(folder / "ray", worker_cpus(job.train, THREADS)) as group:
        group.train(job, lambda records: None)
    # The last record is written before its checkpoint: nothing but steps is between the first and the last one.
    records = read_lines(job.files.metrics)[WARM_UP - 1 :]
    seconds = records[-1]["time"] - records[0]["time"]
    ray.shutdown()
    return {
        "seconds": seconds / case.steps,
        "rate": case.tokens * case.steps / seconds,
        "useful": sum(record["task_tokens"] for record in records[1:]) / seconds,
        "wait": statistics.mean(record["data_wait"] for record in records[1:]) * case.steps / seconds,
    }


def looped(case: Any, rows: Any, side: str) -> sides.Numbers:
    """Train in a loop, plain or of a worker's steps, on the rows that the workers read, which are in memory."""
    import torch

    from benchmarks.throughput import steps
    from continual.contract.stream import Stream
    from continual.training.batch import to_tensors
    from continual.training.ingest import ReadSteps
    from continual.training.losses.kinds import Nll

    torch.set_num_threads(THREADS)
    stream = Stream("task", rows, Nll(), shuffle=True, rows_per_step=case.rows)
    reader = ReadSteps([stream], SEED, 0, 1)
    batches = []
    for number in range(WARM_UP + case.steps):
        arrays = reader.read(number)
        batches.append(to_tensors(stream, {key.partition("/")[2]: value for key, value in arrays.items()}))
    plain = steps.bare_step(case.model(), case.train)
    ours = steps.our_step(case.model(), case.train, [stream])
    for number, batch in enumerate(batches):
        if number == WARM_UP:
            begin = time.perf_counter()
        if side == BARE:
            plain(batch)
        else:
            ours({stream.name: batch})
    seconds = time.perf_counter() - begin
    return {"seconds": seconds / case.steps, "rate": case.tokens * case.steps / seconds}


def one(folder: Path, name: str, side: str, tiny: bool) -> sides.Numbers:
    """Measure a side in this process."""
    from benchmarks.throughput import steps

    case = steps.CASES[name].tiny() if tiny else steps.CASES[name]
    # Each row is read once, in the order that the seed decides.
    rows = case.batch(SEED, case.rows * (WARM_UP + case.steps))
    arrays = {key: value.numpy().astype("float32" if key == "weights" else "int32") for key, value in rows.items()}
    arrays["documents"] = (arrays["positions"] == 0).cumsum(1, dtype="int32") - 1
    stored = store_rows(folder / "store", arrays)
    return trained(folder, case, stored, WORKERS[side]) if side in WORKERS else looped(case, stored, side)


def measure(rounds: int, tiny: bool = False, models: tuple[str, ...] = MODELS) -> dict[str, Any]:
    results = {}
    for name in models:
        each = ("benchmarks.throughput.ray_training", *["--tiny"] * tiny, "--model", name, "--side")
        of: dict[str, Callable[[], sides.Numbers]] = {
            side: partial(sides.in_process, *each, side) for side in (*WORKERS, STEPS, BARE)
        }
        found = sides.alternate(of, rounds)
        results[name] = {
            "sides": sides.summary(found),
            "rate": {side: sides.ratio(found, "rate", side, BARE) for side in (*WORKERS, STEPS)},
        }
    return {"goal": GOAL, "threads": THREADS, "models": results}


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| model | side | tokens/s | of the bare loop | waiting for data |", "|---|---|---|---|---|"]
    for name, found in results["models"].items():
        for side, numbers in found["sides"].items():
            of = numbers["median"]
            ratio = sides.words(found["rate"][side]) if side in found["rate"] else ""
            wait = f"{of['wait']:.2%}" if "wait" in of else ""
            lines.append(f"| {name} | {side} | {of['rate']:,.0f} | {ratio} | {wait} |")
    return "\n".join([*lines, "", f"Goal: {GOAL} of the bare loop. All sides have {THREADS} threads."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="at a size that says nothing")
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--model", choices=MODELS, default=None, help="of `--side`")
    parser.add_argument("--side", choices=(*WORKERS, STEPS, BARE), help="measure this side alone and print its numbers")
    given = parser.parse_args()
    if given.side:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{json.dumps(one(Path(folder), given.model, given.side, given.tiny))}")
        sys.exit()
    models = (given.model,) if given.model else MODELS
    results = measure(given.rounds, given.tiny, models)
    sides.write(results, table(results), given.output, "ray_training")


if __name__ == "__main__":
    main()
