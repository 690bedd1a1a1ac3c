"""Kill -9 while a stage trains on samples that are still made: the end is that of sampling first, undisturbed."""

import json
from pathlib import Path

import pytest

from tests.e2e import command
from tests.faults import provoke
from tests.faults.conftest import LADDER

OPTIONS = (
    "generate.engine=vllm", "generate.ahead=1", "train.cpus_per_worker=0.4", "mitigation.0.samples=null",
    "stages.1.steps=96",
)  # fmt: skip
"""As many samples as the stage needs, which is three windows: the last one is made when the first has been read."""
STREAM, STORE = "generate.delivery=stream", "generate.delivery=store"


def made(storage: Path) -> dict[Path, int]:
    """Return the shards of samples so far, and when each was published."""
    return {path: path.stat().st_mtime_ns for path in (storage / "store" / "samples").glob("*/shard-*.json")}


def complete(storage: Path) -> bool:
    return any((storage / "store" / "samples").glob("*/manifest.json"))


CACHED = (
    "generate.ahead=1", "generate.cpus_per_replica=0.3", "train.cpus_per_worker=0.4", "mitigation.0.samples=null",
    "mitigation.0.teacher=cached", "stages.1.steps=96",
)  # fmt: skip
"""The same with a cached teacher: engine, scorer, worker and the reading of rows fill two CPUs."""


def scored(storage: Path) -> dict[str, int]:
    """Return the shards of columns so far, and when each was published."""
    paths = (storage / "store" / "columns").glob("*/shard-*.json")
    return {f"{path.parent.name}/{path.name}": path.stat().st_mtime_ns for path in paths}


def columns(storage: Path) -> list[list[str]]:
    """Return the address and the content of all columns that are complete."""
    manifests = (storage / "store" / "columns").glob("*/manifest.json")
    return sorted([path.parent.name, json.loads(path.read_text())["content"]] for path in manifests)


@pytest.mark.slow
def test_killed_engine_worker_and_driver(tmp_path: Path) -> None:
    calm, storage = tmp_path / "calm", tmp_path / "streamed"
    finished = command.run(calm, *OPTIONS, STORE, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    first = command.start(storage, *OPTIONS, STREAM, yaml=LADDER)
    first.wait_for(lambda: command.steps_done(storage, "2-sort") >= 2)
    assert not complete(storage), "the engine pauses, two windows ahead"
    provoke.killed(provoke.find(first, "ray::Replica"))
    provoke.killed(provoke.find(first, "ray::RayTrainWorker"))
    before = len(made(storage))
    first.wait_for(lambda: len(made(storage)) > before and not complete(storage))
    first.wait_for(lambda: "an engine ended" in (storage / "tiny" / "log.txt").read_text())  # comes through Ray's log
    known = made(storage)
    processes = provoke.tree(first)
    first.kill()
    provoke.ended(first, processes)

    finished = command.run(storage, *OPTIONS, STREAM, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert command.essence(storage) == command.essence(calm)
    assert known.items() <= made(storage).items(), "a sample was made twice"
    tokens = command.summary(calm)["generated_tokens"]
    assert command.summary(storage)["generated_tokens"] == tokens


@pytest.mark.slow
def test_a_teacher_scores_while_the_stage_trains(tmp_path: Path) -> None:
    """Columns, losses and weights are those of scoring before the training, also after kills of scorer and driver."""
    calm, storage = tmp_path / "calm", tmp_path / "streamed"
    finished = command.run(calm, *CACHED, STORE, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    first = command.start(storage, *CACHED, STREAM, yaml=LADDER)
    first.wait_for(lambda: command.steps_done(storage, "2-sort") >= 2)
    assert scored(storage), "it trains on what is scored"
    assert not columns(storage), "it trains before all is scored"
    provoke.killed(provoke.find(first, "ray::follow_rows"))
    before = len(scored(storage))
    first.wait_for(lambda: len(scored(storage)) > before)
    first.wait_for(lambda: "the process of `follow_rows` was killed" in (storage / "tiny" / "log.txt").read_text())
    known = scored(storage)
    processes = provoke.tree(first)
    first.kill()
    provoke.ended(first, processes)

    finished = command.run(storage, *CACHED, STREAM, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert "score the rest: " in finished.stdout
    assert command.essence(storage) == command.essence(calm)
    assert columns(storage) == columns(calm)
    assert known.items() <= scored(storage).items(), "a shard was scored twice"
