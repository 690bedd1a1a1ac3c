"""What has room on the nodes of a cluster, each of which has less than the cluster."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.delivery import placed_on
from continual.preflight.nodes import Node, fitting_cpus, largest_share, room_beside
from continual.sweep.trials import cpu_overrides
from continual.training.resources import worker_cpus
from tests.unit.preflight.test_delivery import LIVE, TEXT, sequence

GPU, ENGINE = {"gpus_per_worker": 1}, {"gpus_per_replica": 1}


def made(train: dict[str, Any], generate: dict[str, Any] | None = None, **evaluate: Any) -> Sequence:
    return sequence(train, generate or {}, LIVE, {"texts": [TEXT], **evaluate})


def cpus_of_worker(run: Sequence, *nodes: Node, streamed: bool = False) -> float:
    return fitting_cpus(run, streamed, nodes, worker_cpus(run.train, sum(node.cpus for node in nodes)))


@pytest.mark.parametrize(
    ("train", "nodes", "expected"),
    [
        ({}, [Node(8)], 7),
        ({}, [Node(2)] * 3, 2),
        ({"workers": 2}, [Node(8)] * 2, 7),
        ({"workers": 3}, [Node(8)] * 2, 4),
        ({**GPU, "workers": 8}, [Node(96, 8), Node(32)], 12),
        ({**GPU, "workers": 4}, [Node(16, 2), Node(16, 2), Node(4)], 8),
        ({"workers": 2, "cpus_per_worker": 1.5}, [Node(2)] * 2, 1.5),
    ],
)
def test_a_worker_reserves_no_more_than_all_of_them_have_room_for(
    train: dict[str, Any], nodes: list[Node], expected: float
) -> None:
    assert cpus_of_worker(made(train), *nodes) == expected


def test_engines_beside_the_training_keep_their_cpus() -> None:
    run = made({**GPU, "workers": 4}, {**ENGINE, "replicas": 4})
    nodes = Node(96, 8), Node(32)
    assert cpus_of_worker(run, *nodes, streamed=True) == 23, "4 of the 96 CPUs are the engines'"
    assert cpus_of_worker(run, *nodes) == 24


@pytest.mark.parametrize(
    ("run", "nodes", "sentence"),
    [
        (
            made({"workers": 2, "cpus_per_worker": 6}), [Node(8), Node(4), Node(4)],
            "train.workers: 2 workers with 6 CPUs each do not fit on nodes with 8 CPUs, 2 x 4 CPUs; "
            "write `train.cpus_per_worker: 4`, or null",
        ),
        (
            made({**GPU, "gpus_per_worker": 2, "workers": 2}), [Node(8, 1)] * 4,
            "train.gpus_per_worker: 2 workers with 2 GPUs each do not fit on nodes with 4 x 8 CPUs and 1 GPU; lower it",
        ),
        (
            made({**GPU, "workers": 5}), [Node(8, 2)] * 2,
            "train.workers: 5 workers with 1 GPU each do not fit on nodes with 2 x 8 CPUs and 2 GPUs; lower it",
        ),
        (
            made({}, {"gpus_per_replica": 4}), [Node(8, 2)] * 2,
            "generate.gpus_per_replica: an engine with 1 CPU and 4 GPUs does not fit on nodes with 2 x 8 CPUs and 2",
        ),
        (
            made({}, {"cpus_per_replica": 16}), [Node(8)] * 4,
            "generate.cpus_per_replica: an engine with 16 CPUs does not fit on nodes with 4 x 8 CPUs; lower it",
        ),
        (
            made({}, {"gpus_per_replica": 2, "replicas": 3}), [Node(8, 2)] * 2,
            "generate.replicas: 3 engines with 1 CPU and 2 GPUs each do not fit on nodes with 2 x 8 CPUs and 2 GPUs",
        ),
    ],
)  # fmt: skip
def test_what_has_no_room_is_refused(run: Sequence, nodes: list[Node], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        cpus_of_worker(run, *nodes)
    assert sentence in str(refused.value)


@given(
    nodes=st.lists(st.builds(Node, st.integers(1, 16), st.integers(0, 4)), min_size=2, max_size=5),
    workers=st.integers(1, 6),
    gpus=st.integers(0, 1),
)
def test_all_workers_have_room_and_one_that_is_not_refused_reserves_something(
    nodes: list[Node], workers: int, gpus: int
) -> None:
    run = made({"workers": workers, "gpus_per_worker": gpus})
    try:
        cpus = cpus_of_worker(run, *nodes)
    except ConfigurationError:
        assert workers > sum(node.gpus for node in nodes) if gpus else workers > 20 * sum(node.cpus for node in nodes)
        return
    left = sorted((node.cpus for node in nodes for _ in range(int(node.gpus) if gpus else workers)), reverse=True)
    assert cpus > 0
    room = sum(min(int(node.cpus / cpus + 1e-9), int(node.gpus) if gpus else workers) for node in nodes)
    assert room >= workers
    assert cpus <= left[0]


def test_a_part_of_a_gpu_is_one_gpus() -> None:
    nodes = Node(8, 2), Node(8, 1)
    assert largest_share(1, 3, 0.6, nodes) == 1
    assert largest_share(1, 4, 0.6, nodes) is None
    assert largest_share(1, 6, 0.5, nodes) == 1
    assert largest_share(1, 2, 2, nodes) is None


def test_workers_keep_their_places_only_where_an_engine_has_room_beside_them() -> None:
    run = made({**GPU, "workers": 2}, {"gpus_per_replica": 2})
    assert not room_beside(run, [Node(8, 2), Node(8, 1), Node(8, 1)], 1), "they may be on the node with 2 GPUs"
    assert room_beside(run, [Node(8, 4), Node(8, 2)], 1)
    assert room_beside(run, [Node(8, 2)], 1), "what one node has is compared as a whole"


def test_auto_stores_where_the_nodes_have_no_room_to_stream() -> None:
    nodes = [Node(2, 1), Node(2, 1), Node(2, 1)]
    run = made({**GPU, "workers": 2, "cpus_per_worker": 2}, {**ENGINE, "cpus_per_replica": 2})
    with pytest.raises(ConfigurationError, match=r"write `generate\.delivery: store`|train"):
        fitting_cpus(run, True, nodes, 2)
    delivery, why, cpus = placed_on(run, nodes, 6.0, 3.0)
    assert (delivery, cpus) == ("store", 2)
    assert "CPU" in why
    asked = run.model_copy(update={"generate": run.generate.model_copy(update={"delivery": "stream"})})
    with pytest.raises(ConfigurationError):
        placed_on(asked, nodes, 6.0, 3.0)


def test_trials_at_the_same_time_have_room_together() -> None:
    run = made({})
    assert cpu_overrides(run, 2, 16.0, [Node(4)] * 4) == ["train.cpus_per_worker=4.0"]
    assert cpu_overrides(run, 2, 16.0, [Node(16)]) == ["train.cpus_per_worker=7.5"]
