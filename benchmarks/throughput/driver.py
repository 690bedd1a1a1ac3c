"""What the driver's bookkeeping costs as a run grows: a poll of a stage's files, a shard put into the store, a stage.

`python -m benchmarks.throughput.driver` measures them on files that it generates in a temporary folder, without Ray. A
poll of the tracker, in its own thread, saves its state twice, and a shard its side file once: their time is mostly the
disk's. A stage is what the driver looks up and writes in the ledger for it, and the figures of the matrix after it; the
files are synced for every event.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from benchmarks import record
from continual.evaluation.inside import InsideStage
from continual.forgetting import Matrix, last_figures, read_matrix
from continual.ledger.folder import StageFolder
from continual.ledger.ledger import Events
from continual.ledger.lines import Tail
from continual.ledger.records import Records
from continual.sampling.write import limit_failures
from continual.show.tracking.sender import Sender
from continual.store import Store

STEPS = (100, 1_000, 10_000, 100_000)
SHARDS = (10, 100, 1_000, 10_000)
SCORED_EVERY = 100
"""Steps between two evaluations inside the stage."""
STAGES = (10, 100, 1_000)
STAGE_REPEATS = 50
REPEATS = 200
LAST_SHARDS = 10
"""How many of the last shards the time of a shard is taken over."""


def line(step: int) -> dict[str, Any]:
    """Return a record of a step with a task and one replay stream, as rank 0 writes it."""
    return {
        "step": step, "loss": {"task": 1.0 / step, "replay": 0.5}, "weight": {"task": 1.0, "replay": 1.0},
        "tokens": 8192, "task_tokens": 4096, "learning_rate": 1e-5, "gradient_norm": 1.0,
        "rows": {"task": "0123456789abcdef", "replay": "0123456789abcdef"}, "data_wait": 0.01, "seconds": 0.5,
    }  # fmt: skip


def median_ms(act: Callable[[], None], prepare: Callable[[], None], repeats: int) -> float:
    """Return the median duration in milliseconds of `act`, with an untimed `prepare` before each call."""
    durations = []
    for _ in range(repeats):
        prepare()
        begin = time.perf_counter()
        act()
        durations.append(time.perf_counter() - begin)
    return 1000 * statistics.median(durations)


class Sent:
    """A client of the tracker that takes everything at once, so that only the sender's own work is measured."""

    connected = True

    def __init__(self) -> None:
        self.runs = {"sequence": "0", "stage-1": "1"}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def poll(folder: Path, steps: int) -> dict[str, float]:
    """Return the milliseconds of one poll after `steps` steps, when one step is new: the driver's and the tracker's."""
    events = Events(folder / "ledger.jsonl").open()
    events.run_id()
    events.add("prepared", stage=1, name="one", steps=steps, data={}, tags={"sequence": "s", "mitigation": "none"})
    files = StageFolder(folder / "stages" / "1-one")
    records, numbers = Records(files.metrics, 0), itertools.count(1)
    for _ in range(steps):
        records.file.write(json.dumps({**line(next(numbers)), "time": 0.0}) + "\n")
    records.file.flush()
    files.scores.mkdir()
    for step in range(SCORED_EVERY, steps + 1, SCORED_EVERY):
        files.score_file(step).write_text(json.dumps({"scores": {"task": {"score": 0.5, "stderr": 0.1, "n": 64}}}))

    scorer: Any = SimpleNamespace(texts_since=lambda stage_start: {})
    inside = InsideStage(scorer, files, set(files.score_files()), lambda step, scores: None, 2, print)
    tail = Tail(files.metrics)

    def driver() -> None:
        list(tail.read())
        inside.poll()

    sender = Sender(events.path, "", "")
    sender._client = Sent()  # type: ignore[assignment]
    driver()
    sender.send()

    def add_step() -> None:
        records.append(line(next(numbers)))

    return {"driver": median_ms(driver, add_step, REPEATS), "tracker": median_ms(sender.send, add_step, REPEATS)}


def shard(folder: Path, shards: int) -> dict[str, float]:
    """Return the milliseconds that each of the last shards takes, and all of them: written, counted, checked."""
    store = Store(folder / "store")
    inputs = {"shards": shards}
    artefact = store.artefact("samples", inputs)
    table = pa.table({"number": [0], "tokens": [[1, 2, 3]]})
    config: Any = SimpleNamespace(max_failed=0.01)
    durations = []
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        for index in writer.missing(shards):
            begin = time.perf_counter()
            writer.put(index, table, samples=64, failed=0, tokens=192)
            limit_failures(writer.counts["failed"], 64 * shards, config)
            artefact.shards()
            durations.append(time.perf_counter() - begin)
    return {"shard": 1000 * statistics.median(durations[-LAST_SHARDS:]), "all": 1000 * sum(durations)}


def stage(folder: Path, stages: int) -> dict[str, float]:
    """Return the milliseconds of one more stage after `stages`, all scored on two tasks: the ledger's and the figures'.

    The ledger is asked and written as `run_sequence` does.
    """
    ledger = Events(folder / "ledger.jsonl").open()
    scores = {task: {"score": 0.5, "stderr": 0.1, "n": 64, "unit": "accuracy"} for task in ("a", "b")}
    numbers = itertools.count()

    def book() -> None:
        number = next(numbers)
        name, model = f"s{number}", f"hash{number}"
        ledger.find("stage_done", stage=number)
        ledger.find("prepared", stage=number)
        ledger.of_stage("inside", number)
        ledger.add("prepared", stage=number, name=name)
        ledger.find("scored", stage=number, model=model)
        ledger.add("scored", stage=number, name=name, model=model, scores=scores)
        ledger.add("stage_done", stage=number, name=name)

    for _ in range(stages):
        book()
    matrix = read_matrix(ledger.all("scored"))
    return {
        "ledger": median_ms(book, lambda: None, STAGE_REPEATS),
        "figures": median_ms(lambda: _figures(matrix), lambda: None, STAGE_REPEATS),
    }


def _figures(matrix: Matrix) -> None:
    last_figures(matrix, [["a"], ["b"]], [])


def measure(
    steps: Sequence[int] = STEPS, shard_counts: Sequence[int] = SHARDS, stage_counts: Sequence[int] = STAGES
) -> dict[str, Any]:
    polls, shards, stages = {}, {}, {}
    for count in steps:
        with tempfile.TemporaryDirectory() as folder:
            polls[count] = poll(Path(folder), count)
    for count in shard_counts:
        with tempfile.TemporaryDirectory() as folder:
            shards[count] = shard(Path(folder), count)
    for count in stage_counts:
        with tempfile.TemporaryDirectory() as folder:
            stages[count] = stage(Path(folder), count)
    return {"unit": "milliseconds", "poll": polls, "shards": shards, "stages": stages}


def table(results: dict[str, Any]) -> str:
    """Return the measurements as Markdown tables."""
    lines = ["| steps | a poll of the driver, ms | a poll of the tracker, ms |", "|---|---|---|"]
    lines += [f"| {steps:,} | {ms['driver']:.3f} | {ms['tracker']:.3f} |" for steps, ms in results["poll"].items()]
    lines += ["", "| shards | one more shard, ms | all shards, s |", "|---|---|---|"]
    lines += [f"| {n:,} | {ms['shard']:.3f} | {ms['all'] / 1000:.2f} |" for n, ms in results["shards"].items()]
    lines += ["", "| stages | the ledger of one more, ms | figures after it, ms |", "|---|---|---|"]
    lines += [f"| {n:,} | {ms['ledger']:.3f} | {ms['figures']:.3f} |" for n, ms in results["stages"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    output = parser.parse_args().output
    results = measure()
    text = table(results)
    print(text)
    record.write(results, text, output, "driver")


if __name__ == "__main__":
    main()
