"""CPUs and GPUs that a sequence needs at one time, against what there is."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from continual.config.schema import Sequence, Train
from continual.errors import ConfigurationError

FREE_CPUS = 1.0
"""Left for Ray Data beside workers and engines: without it reading waits for ever."""


@dataclass(frozen=True)
class Machine:
    """CPUs and GPUs at hand; None: unknown before a connection to the cluster at `address`."""

    cpus: float | None
    gpus: float | None
    address: str = ""


@dataclass(frozen=True)
class Demand:
    """What a phase takes at one time, and the key that decides it."""

    phase: str
    cpus: float
    gpus: float
    key: str


def local_cpus() -> int:
    """CPUs to offer to a Ray of our own: at least 2, since a worker and the reading beside it need one each.

    Ray counts CPUs only to schedule; on one core two processes take turns.
    """
    return max(2, os.cpu_count() or 1)


def local_gpus() -> int | None:
    """GPUs that CUDA would show, without loading it; None where that cannot be told from outside (WSL, ROCm)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    found = len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdecimal()])
    if not found and (Path("/dev/kfd").exists() or Path("/dev/dxg").exists()):
        return None
    return found


def machine() -> Machine:
    """This machine, or an unknown cluster where RAY_ADDRESS names one."""
    address = os.environ.get("RAY_ADDRESS", "")
    return Machine(None, None, address) if address and address != "local" else Machine(local_cpus(), local_gpus())


def samples(sequence: Sequence) -> bool:
    """Whether any mitigation samples in any stage."""
    stages = range(1, len(sequence.stages) + 1)
    return any(
        one.samples(sequence, stage) > 0
        for stage in stages
        for one in sequence.mitigations(stage)
        if one.active(sequence, stage)
    )


def demands(sequence: Sequence) -> list[Demand]:
    """What training, sampling and evaluation take. They need not run at the same time, except that an actor for
    `evaluate.every` keeps its GPUs while training goes on."""
    train, generate, evaluate = sequence.train, sequence.generate, sequence.evaluate
    each = train.cpus_per_worker
    beside = evaluate.gpus if evaluate.every else 0.0
    found = [
        Demand(
            "training",
            train.workers * each if each else 1.0,
            train.workers * train.gpus_per_worker + beside,
            "train.cpus_per_worker" if each else "train.workers",
        )
    ]
    if samples(sequence):
        gpus = generate.replicas * generate.gpus_per_replica
        found.append(Demand("sampling", generate.replicas * generate.cpus_per_replica, gpus, "generate.replicas"))
    if evaluate.gpus:
        found.append(Demand("evaluation", 0.0, evaluate.gpus, "evaluate.gpus"))
    return found


def check_fit(sequence: Sequence, cpus: float | None, gpus: float | None) -> None:
    """Raises ConfigurationError for a phase that could never start on so many CPUs and GPUs (None: unknown)."""
    for need in demands(sequence):
        if cpus is not None and need.cpus + FREE_CPUS > cpus:
            problem = f"{need.phase} takes {need.cpus:g} CPUs and reading beside it 1, but there are {cpus:g}"
            raise ConfigurationError(need.key, problem, _fewer_cpus(sequence, need, cpus))
        if gpus is not None and need.gpus > gpus:
            key = need.key if need.phase == "evaluation" else _gpu_key(need)
            have = f"there are {gpus:g}" if gpus else "there is none"
            fix = "lower it, or start on a cluster that has them (RAY_ADDRESS)"
            raise ConfigurationError(
                key, f"{need.phase} takes {need.gpus:g} GPU{'s' * (need.gpus > 1)}, but {have}", fix
            )


def _gpu_key(need: Demand) -> str:
    return "train.gpus_per_worker" if need.phase == "training" else "generate.gpus_per_replica"


def _fewer_cpus(sequence: Sequence, need: Demand, cpus: float) -> str:
    if cpus <= FREE_CPUS:
        return "start on a cluster with at least 2 CPUs"
    if need.phase == "training":
        share = math.floor(100 * (cpus - FREE_CPUS) / sequence.train.workers) / 100
        return f"write `train.cpus_per_worker: {share:g}`, or null to share what there is" if share else "use fewer"
    share = int((cpus - FREE_CPUS) / sequence.generate.cpus_per_replica)
    return f"write `generate.replicas: {share}`" if share else "lower `generate.cpus_per_replica`"


def worker_cpus(train: Train, cpus: float) -> float:
    """CPUs that a worker reserves: as configured, or an equal part of what there is less what stays free."""
    if train.cpus_per_worker:
        return train.cpus_per_worker
    share = max(cpus - FREE_CPUS, 0.5) / train.workers
    return float(int(share)) if share >= 1 else round(max(share, 0.05), 2)
