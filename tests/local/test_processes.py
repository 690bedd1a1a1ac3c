"""A task that a worker of Ray Train starts runs in a process that a task of the driver has left idle."""

import os
import time
from pathlib import Path
from typing import Any

import ray

from continual.run.environment import HANDED_ON


def process_id(meet: Path | None = None) -> int:
    """Return the number of this process; with a folder, once two processes have met there."""
    if meet is not None:
        (meet / str(os.getpid())).touch()
        while len(list(meet.iterdir())) < 2:
            time.sleep(0.05)
    return os.getpid()


process: Any = ray.remote(num_cpus=0.1)(process_id)


class Worker:
    def started(self) -> int:
        found: int = ray.get(process.remote())
        return found


def test_a_workers_tasks_take_idle_processes(local_ray: None, tmp_path: Path) -> None:
    # Two, so that one is left where the worker takes the other.
    idle = set(ray.get([process.remote(tmp_path) for _ in range(2)]))
    # Ray Train starts its workers with what it hands on.
    worker: Any = ray.remote(Worker).options(num_cpus=0, runtime_env={"env_vars": dict(HANDED_ON)}).remote()
    assert ray.get(worker.started.remote()) in idle
