"""Environment variables of a run: what Ray reads in the driver, and what every process of the job has."""

import json
import os
from pathlib import Path
from typing import Any

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise a thread that still waits for scores after the run has disconnected would start a new cluster.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
HANDED_ON = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",  # as Ray Train sets it for its controller
}
"""What Ray Train (2.60) hands on from the driver to its workers."""
LOCAL_HANDED_ON = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""The same for a local cluster. No process has to watch whether its nodes are about to be taken away."""


def set_defaults(local: bool) -> None:
    """Set what the user has not set, for the driver of a `local` cluster or of another one. Call it before Ray."""
    for name, value in (DEFAULTS | HANDED_ON | (LOCAL_HANDED_ON if local else {})).items():
        os.environ.setdefault(name, value)


def job_environment() -> Any:
    """Return Ray's runtime environment of the processes that the job starts.

    Ray gives a task the process of an earlier one only where their environments are written the same way. Those of
    workers, and of the tasks that read their rows, come from the driver's by way of Ray Train. So what it hands on is
    in all, and they are written as Ray's core writes them: else every stage would start processes that take seconds
    to import Ray Data, which idle ones have (ray 2.60).
    """
    from ray.runtime_env import RuntimeEnv

    class Compact(RuntimeEnv):
        def serialize(self) -> str:
            return json.dumps(json.loads(super().serialize()), sort_keys=True, separators=(",", ":"))

    # Workers import the user's own modules (rows, models, tasks) from where the driver does.
    paths = dict.fromkeys([str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    handed_on = {name: os.environ[name] for name in (*HANDED_ON, *LOCAL_HANDED_ON) if name in os.environ}
    return Compact(env_vars={**handed_on, "PYTHONPATH": os.pathsep.join(paths).rstrip(os.pathsep)})
