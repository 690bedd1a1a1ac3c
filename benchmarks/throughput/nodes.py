"""Two machines of one core each on this one: a Ray cluster of two nodes, whose processes are kept to their cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from continual.run.cluster import LOCAL_SYSTEM

CPUS = 4
"""CPUs that each node offers. Ray counts them and nothing more; what is reserved decides where processes go."""
STORE_BYTES = 500 << 20


@contextmanager
def two_of_one_core() -> Iterator[dict[str, str]]:
    """Start the cluster; yield the environment with which commands use it.

    Raises SystemExit on a machine of one core.
    """
    from ray.cluster_utils import Cluster

    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        raise SystemExit("two cores are needed: one for each node")
    node: dict[str, Any] = {"num_cpus": CPUS, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    # Processes that are idle are kept as in a local run: on so few cores a new one would take a core for seconds.
    made = {**node, "_system_config": dict(LOCAL_SYSTEM)}
    cluster = Cluster()
    try:
        for core in sorted(allowed)[:2]:
            os.sched_setaffinity(0, {core})  # what a node starts inherits it
            cluster.add_node(**(node if cluster.list_all_nodes() else made))
        os.sched_setaffinity(0, allowed)
        cluster.wait_for_nodes()
        yield {**os.environ, "RAY_ADDRESS": cluster.address}
    finally:
        os.sched_setaffinity(0, allowed)
        cluster.shutdown()
