"""The CPUs and GPUs that a sequence needs at one time, compared with those of the machine or cluster."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.stages import samples_in_order, scores_samples, uses_sampling
from continual.training.resources import FREE_CPUS

STREAMED = "generate.delivery"
STORED = "write `generate.delivery: store`, which does one after the other"


@dataclass(frozen=True)
class Machine:
    """The CPUs and GPUs that a run may use; None: unknown until it connects to the Ray cluster at `address`."""

    cpus: float | None
    gpus: float | None
    address: str = ""


@dataclass(frozen=True)
class Demand:
    """The CPUs and GPUs that a phase takes at one time, and the key that sets them."""

    phase: str
    cpus: float
    gpus: float
    key: str


def local_cpus() -> int:
    """Return the CPUs to give to a Ray instance of our own.

    At least 2: a worker and the reading of its data need one each. Ray uses the number only for scheduling; on a single
    core the two processes take turns.
    """
    return max(2, os.cpu_count() or 1)


def local_gpus() -> int | None:
    """Return the number of GPUs that CUDA would show, without loading CUDA; None if it is unknown (WSL, ROCm)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    devices = [path for path in Path("/dev").glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdecimal()]
    if not devices and (Path("/dev/kfd").exists() or Path("/dev/dxg").exists()):
        return None
    return len(devices)


def detect_machine() -> Machine:
    """Return this machine, or an unknown cluster if RAY_ADDRESS names one."""
    address = os.environ.get("RAY_ADDRESS", "")
    return Machine(None, None, address) if address and address != "local" else Machine(local_cpus(), local_gpus())


def demands(sequence: Sequence) -> list[Demand]:
    """Return what training, sampling and evaluation take at one time.

    The phases take turns, except that the evaluators of `evaluate.every` keep their GPUs during training.
    """
    train, generate, evaluate = sequence.train, sequence.generate, sequence.evaluate
    evaluators = evaluate.replicas * evaluate.reserved_gpus
    training = Demand(
        "training",
        train.workers * train.cpus_per_worker if train.cpus_per_worker else 1.0,
        train.workers * train.gpus_per_worker + (evaluators if evaluate.every else 0.0),
        "train.cpus_per_worker" if train.cpus_per_worker else "train.workers",
    )
    count, cpus, gpus = generate.replicas, generate.cpus_per_replica, generate.gpus_per_replica
    sampling = Demand("sampling", count * cpus, count * gpus, "generate.replicas")
    evaluation = Demand(
        "evaluation", 0.0, evaluators, "evaluate.replicas" if evaluate.replicas > 1 else "evaluate.gpus"
    )
    return [training] + [sampling] * uses_sampling(sequence) + [evaluation] * bool(evaluate.reserved_gpus)


def scoring(sequence: Sequence) -> Demand | None:
    """Return what scores samples while they are made: one process with a replica's resources; None if nothing does."""
    generate = sequence.generate
    if not scores_samples(sequence):
        return None
    return Demand("scoring", generate.cpus_per_replica, generate.gpus_per_replica, "generate.cpus_per_replica")


def while_training(sequence: Sequence) -> list[Demand]:
    """Return what works while a stage trains where samples are streamed: engines, and what scores their samples."""
    if not samples_in_order(sequence):
        return []
    sampling = [demand for demand in demands(sequence) if demand.phase == "sampling"]
    return sampling + [demand for demand in [scoring(sequence)] if demand]


def beside(sequence: Sequence) -> Demand | None:
    """Return what training takes together with what works at the same time, None if no samples could be streamed."""
    others = while_training(sequence)
    if not others:
        return None
    all_of = [demands(sequence)[0], *others]
    phase = f"{' with '.join(demand.phase for demand in others)} beside training"
    cpus, gpus = (round(sum(parts), 4) for parts in ([d.cpus for d in all_of], [d.gpus for d in all_of]))
    return Demand(phase, cpus, gpus, STREAMED)


def check_resources(sequence: Sequence, cpus: float | None, gpus: float | None) -> None:
    """Raise ConfigurationError for a phase that needs more CPUs or GPUs than there are (None: unknown)."""
    train = sequence.train
    if cpus is not None and train.workers > cpus and train.cpus_per_worker is None and not train.gpus_per_worker:
        part = math.floor(100 * max(cpus - FREE_CPUS, 0.5) / train.workers) / 100
        share = f", or `train.cpus_per_worker: {part:g}` to share the CPUs" if part else ""
        problem = f"{train.workers} workers train on CPUs, and there are {cpus:g}"
        raise ConfigurationError("train.workers", problem, f"write at most {cpus:g}{share}")
    evaluate = sequence.evaluate
    if cpus is not None and evaluate.replicas > cpus and not evaluate.reserved_gpus:
        problem = f"{evaluate.replicas} processes evaluate on CPUs, and there are {cpus:g}"
        raise ConfigurationError("evaluate.replicas", problem, f"write at most {cpus:g}")
    both = beside(sequence) if sequence.generate.delivery == "stream" else None
    for demand in [*demands(sequence), *([both] if both else [])]:
        if cpus is not None and demand.cpus + FREE_CPUS > cpus:
            problem = f"{demand.phase} takes {demand.cpus:g} CPUs and reading its data 1, but there are {cpus:g}"
            raise ConfigurationError(demand.key, problem, _fewer_cpus(sequence, demand, cpus))
        if gpus is not None and demand.gpus > gpus:
            keys = {"training": "train.gpus_per_worker", "sampling": "generate.gpus_per_replica"}
            have = f"there are {gpus:g}" if gpus else "there is none"
            inside = evaluate.replicas * evaluate.reserved_gpus if evaluate.every and demand.phase == "training" else 0
            shared = f" ({inside:g} of them to evaluate)" if inside else ""
            problem = f"{demand.phase} takes {demand.gpus:g} GPU{'s' * (demand.gpus > 1)}{shared}, but {have}"
            fix = "lower it, or start on a cluster that has them (RAY_ADDRESS)"
            fix = STORED if demand.key == STREAMED else fix
            raise ConfigurationError(keys.get(demand.phase, demand.key), problem, fix)


def _fewer_cpus(sequence: Sequence, demand: Demand, cpus: float) -> str:
    """Return the fix for a phase that takes too many CPUs."""
    free = cpus - FREE_CPUS
    if demand.key == STREAMED:
        return STORED
    if free <= 0:
        return "start on a cluster with at least 2 CPUs"
    if demand.phase == "training":
        part = math.floor(100 * free / sequence.train.workers) / 100
        return f"write `train.cpus_per_worker: {part:g}`, or null to share the CPUs" if part else "use fewer"
    replicas = int(free / sequence.generate.cpus_per_replica)
    return f"write `generate.replicas: {replicas}`" if replicas else "lower `generate.cpus_per_replica`"
