"""A task that a worker of Ray Train starts runs in a process that a task of the driver has left idle."""

import os
import time
from typing import Any

import ray

from continual.run.environment import HANDED_ON


def process_id(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


process: Any = ray.remote(num_cpus=0.1)(process_id)


class Worker:
    def started(self) -> int:
        found: int = ray.get(process.remote())
        return found


def test_a_workers_tasks_take_idle_processes(local_ray: None) -> None:
    idle = set(ray.get([process.remote(1.0) for _ in range(2)]))
    assert len(idle) == 2, "they ran at one time, so that one is left where the worker takes the other"
    # Ray Train starts its workers with what it hands on.
    worker: Any = ray.remote(Worker).options(num_cpus=0, runtime_env={"env_vars": dict(HANDED_ON)}).remote()
    assert ray.get(worker.started.remote()) in idle
