"""Connect to Ray: the cluster that RAY_ADDRESS names, or a local one of our own that ends with the driver."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from continual.config.paths import in_job
from continual.errors import ContinualError, with_fix
from continual.preflight.nodes import Node
from continual.preflight.resources import local_cpus
from continual.run.address import check_address
from continual.run.environment import job_environment, set_defaults
from continual.run.guard import Guard, Head, own_sessions

LOCAL_SYSTEM = {
    "idle_worker_killing_time_threshold_ms": 60_000,
    "enable_metrics_collection": False,
    "prestart_worker_first_driver": False,
}
"""By default Ray ends processes that are idle for a second where there are more of them than CPUs. On a small machine
every task that reads some steps' rows would then begin with starting a process, which takes longer than the steps.
Nobody reads a local cluster's metrics, whose port asks for no token. And the processes that Ray would start ahead lack
the job's environment, so that none of them is ever used."""
LOOPBACK = {
    # Ray's switch for systems whose firewalls ask about every port: the node's address is then 127.0.0.1, and all that
    # Ray starts binds to the address of the node.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "VLLM_HOST_IP": "127.0.0.1",
}
"""Environment of a local run, in which nothing has to be reached from another machine."""
DEVICES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables that name the network device of PyTorch's workers."""


def stay_local() -> None:
    """Let a local cluster listen on the loopback device alone; what the user has set stays. Call it before Ray."""
    loopback = {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}
    for name, value in {**LOOPBACK, **{variable: device for variable in DEVICES for device in loopback}}.items():
        os.environ.setdefault(name, value)
    if "ray" in sys.modules:  # has read its environment by now
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] not in ("0", "false")


@contextmanager
def connected(guard: Guard) -> Iterator[dict[str, float]]:
    """Connect to the cluster and yield its resources; disconnect at the end. `guard` cleans up after a local one.

    Raises ContinualError when RAY_ADDRESS names a cluster that does not answer, and when a local one ends.
    """
    address = os.environ.get("RAY_ADDRESS")
    local = not address
    if local:
        stay_local()
    set_defaults(local)
    if address:
        check_address(address)
    import ray

    options: dict[str, Any] = {"address": address or "local", "log_to_driver": True}
    if local:
        options |= {"num_cpus": local_cpus(), "include_dashboard": False, "_system_config": dict(LOCAL_SYSTEM)}
    if not in_job():
        options["runtime_env"] = job_environment()
    asked_to_end = signal.getsignal(signal.SIGTERM)
    try:
        with own_sessions(guard) if local else nullcontext():
            ray.init(**options)
    except Exception as error:  # of no narrower type where a node needs more than Ray's half minute to come up
        what = f"no Ray cluster answers at RAY_ADDRESS={address}" if address else "Ray does not start on this machine"
        raise ContinualError(f"{what}: {error}") from error
    # ray.init() puts its own handler there, which ends a driver on SIGTERM without a checkpoint.
    if asked_to_end is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, asked_to_end)
    head = Head(_head_processes(guard) if local else {}, guard)
    try:
        yield dict(ray.cluster_resources())
    except BaseException as error:
        if death := head.death():
            raise ContinualError(with_fix(death)) from error
        raise
    finally:
        head.close()
        # Without its head the connection cannot be closed: Ray would wait for it, and then end this process.
        if head.death() is None:
            ray.shutdown()


def nodes() -> list[Node]:
    """Return what the nodes of the cluster have that live; needs a connection."""
    import ray

    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in there]


def _head_processes(guard: Guard) -> dict[str, Any]:
    """Return the processes of the local cluster by their type; tell the guard where its files are."""
    from ray._private import worker

    node = worker._global_node
    if node is None:
        return {}
    guard.tell(session=node.get_session_dir_path())
    return dict(node.all_processes)
