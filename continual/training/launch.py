"""Run a stage's training with Ray Train from the driver, and watch it."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.errors import ContinualError, describe, with_fix
from continual.ledger.events import is_record
from continual.ledger.lines import Tail
from continual.store import folder_damage
from continual.training.checkpoints import newest_valid
from continual.training.job import TrainJob
from continual.training.resources import worker_cpus

POLL_SECONDS = 0.5
STILL_SECONDS = 180.0
"""Ctrl-C waits for the workers while their checkpoint grows, and this long while it does not: it is hashed, too."""


def exported(job: TrainJob) -> bool:
    """Return whether the stage's model has been exported and is whole."""
    return job.export.is_dir() and folder_damage(job.export) is None


def fit(
    job: TrainJob,
    cluster_cpus: float,
    watch: Callable[[list[dict[str, Any]]], None],
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Train until `job.export` exists. `watch` gets the records that are new, about twice a second.

    On KeyboardInterrupt `stopping` is called at once, and the workers finish their step and publish a checkpoint before
    the caller gets it; a second one ends the wait. Raises ContinualError with the workers' sentence if they had one.
    """
    files = job.files
    job.folder.mkdir(parents=True, exist_ok=True)
    for leftover in (files.stop, files.failed):
        leftover.unlink(missing_ok=True)
    outcome: dict[str, BaseException] = {}
    # Use an Event: a join() that Ctrl-C interrupts marks a running thread as finished (Python 3.11).
    ended = threading.Event()
    # In a thread of its own: in the main thread fit() would install a SIGINT handler and leave it behind.
    threading.Thread(target=_fit, args=(job, cluster_cpus, outcome, ended), daemon=True).start()
    with contextlib.closing(Tail(files.metrics, is_record)) as records:
        try:
            while not ended.wait(POLL_SECONDS):
                watch(list(records.read()))
        except KeyboardInterrupt:
            files.stop.touch()
            stopping()
            with contextlib.suppress(KeyboardInterrupt):
                wait_for_checkpoint(job.checkpoints, ended)
            raise
        watch(list(records.read()))
    if error := outcome.get("error"):
        text = files.failed.read_text(encoding="utf-8", errors="replace") if files.failed.is_file() else describe(error)
        step, _ = newest_valid(job.checkpoints)
        raise ContinualError(with_fix(f"training failed after step {step}: {text}")) from error
    if not exported(job):
        raise ContinualError(f"training ended without a whole model in {job.export}; run the same command again")


def wait_for_checkpoint(folder: Path, ended: threading.Event) -> None:
    """Wait until the workers have ended, or their checkpoint has not grown for STILL_SECONDS."""
    size, since = -1, time.monotonic()
    while not ended.wait(POLL_SECONDS):
        now = _size(folder)
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > STILL_SECONDS:
            return


def _size(folder: Path) -> int:
    """Return the bytes below a folder; a file that is renamed meanwhile may count or not."""
    total = 0
    for parent, _, names in os.walk(folder):  # unlike `rglob`, it goes on when a folder disappears
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def _fit(job: TrainJob, cluster_cpus: float, outcome: dict[str, BaseException], ended: threading.Event) -> None:
    try:
        _trainer(job, cluster_cpus).fit()
    except BaseException as error:
        outcome["error"] = error
    finally:
        ended.set()


def _trainer(job: TrainJob, cluster_cpus: float) -> Any:
    import ray.data
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from continual.training.ingest import OrderedIngest
    from continual.training.worker import train_worker

    gpu = job.train.gpus_per_worker > 0
    resources = {"CPU": worker_cpus(job.train, cluster_cpus)} | ({"GPU": job.train.gpus_per_worker} if gpu else {})
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=job.train.workers, use_gpu=gpu, resources_per_worker=resources),
        # A new name every time: an old one would resume Ray Train's state; we keep our own checkpoints.
        run_config=RunConfig(
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=str(job.files.ray),
            failure_config=FailureConfig(max_failures=job.train.max_failures),
        ),
        datasets={"steps": ray.data.range(1)},
        dataset_config=OrderedIngest(job.streams, job.seed, job.steps, str(job.checkpoints)),
    )
