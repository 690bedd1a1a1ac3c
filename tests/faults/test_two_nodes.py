"""A cluster of two nodes: workers on both, samples while they train, scores beside the next stage, a node that dies."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e import command
from tests.faults.conftest import LADDER

OPTIONS = (
    "train.workers=2", "generate.engine=vllm", "generate.delivery=stream", "generate.ahead=1",
    "mitigation.0.samples=null", "stages.1.steps=96",
)  # fmt: skip
NODE = {"num_cpus": 2, "object_store_memory": 200 << 20}
BOTH_NODES = ("train.cpus_per_worker=1.2", "evaluate.overlap=true")
"""A node has room for one worker."""
ONE_NODE = ("train.cpus_per_worker=0.2", "evaluate.overlap=false")


@contextmanager
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a cluster of one node, which the commands in the block use; its processes are this one's children."""
    from ray.cluster_utils import Cluster

    made, plain = Cluster(initialize_head=True, head_node_args=NODE), command.environment()
    monkeypatch.setattr(command, "environment", lambda: {**plain, "RAY_ADDRESS": made.address})
    try:
        yield made
    finally:
        made.shutdown()


def raylets_of_workers() -> set[int]:
    """Return the processes that started the training's workers: one per node."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::RayTrainWorker" in " ".join(process.cmdline()):
                found.add(process.ppid())
        except psutil.Error:
            continue
    return found


def ledger(storage: Path) -> list[tuple[Any, ...]]:
    """Return what the ledger says, in its order, without times."""
    lines = [json.loads(line) for line in (storage / "tiny" / "ledger.jsonl").read_text().splitlines()]
    return [(line["event"], line.get("stage"), line.get("phase"), line.get("scores")) for line in lines]


@pytest.mark.slow
def test_a_streamed_run_on_two_nodes_of_which_one_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm, storage = tmp_path / "calm", tmp_path / "two"
    finished = command.run(calm, *OPTIONS, *ONE_NODE, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    with cluster(monkeypatch) as nodes:
        second = nodes.add_node(**NODE)
        nodes.wait_for_nodes()
        run = command.start(storage, *OPTIONS, *BOTH_NODES, yaml=LADDER)
        run.wait_for(lambda: command.steps_done(storage, "2-sort") >= 8)
        assert len(raylets_of_workers()) == 2
        nodes.remove_node(second, allow_graceful=False)
        nodes.add_node(**NODE)
        code = run.process.wait(600)
    assert code == 0, run.output.read_text()[-3000:]
    assert "is scored beside the next stage" in run.output.read_text()
    assert command.essence(storage) == command.essence(calm)
    assert ledger(storage) == ledger(calm)
