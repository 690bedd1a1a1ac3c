"""The training loop in this process, without Ray: build a stage's job, run it, kill it, resume it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from continual.contract.models import ModelRef
from continual.ledger.lines import read_lines
from continual.ledger.records import Records
from continual.models import model_hash
from continual.run.services import StageContext
from continual.run.stage import build_job
from continual.training.batch import Batch, to_batch
from continual.training.ingest import ReadSteps
from continual.training.job import TrainJob
from continual.training.worker import Worker, run_steps

CPU = torch.device("cpu")


class Killed(Exception):
    """What ends a run that is to be resumed."""


def job_of(ctx: StageContext, folder: Path | None = None) -> TrainJob:
    """Return the job of a stage in `folder`, next to the store by default."""
    return build_job(ctx, folder or ctx.store.root.parent / "stage", 1)


def worker_of(job: TrainJob) -> Worker:
    """Return the only worker of a job, from its newest checkpoint."""
    return Worker(job, 0, 1, CPU)


def arrays(job: TrainJob, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    """Return what Ray Data delivers to a worker in a step (0-based)."""
    read = ReadSteps(job.streams, job.seed, rank, ranks)
    return {"step": [step], **{key: value[None] for key, value in read.read(step).items()}}


def batch_of(job: TrainJob, step: int) -> Batch:
    """Return the tensors of a step for the only worker."""
    return to_batch(job.streams, arrays(job, step))


def run(job: TrainJob, until: int | None = None) -> tuple[list[dict[str, Any]], Worker]:
    """Run all steps by the loop of Ray Train's workers, from the newest checkpoint on.

    Args:
        job: The job.
        until: The step after which the run is killed; None for never.

    Returns:
        The records of all steps, as they were written, and the worker.
    """
    worker = worker_of(job)

    def batches() -> Iterator[dict[str, Any]]:
        for step in range(worker.step, job.steps):
            if step == until:
                raise Killed
            yield arrays(job, step)

    with suppress(Killed):
        run_steps(worker, batches(), Records(job.files.metrics, worker.step), job.files.stop)
    worker.settle()
    return read_lines(job.files.metrics), worker


def continuing(ctx: StageContext, job: TrainJob, worker: Worker) -> dict[str, torch.Tensor]:
    """Return the weights of the model that continues the sequence: the export, or what a mitigation makes of it."""
    worker.export(job.export)
    model = ModelRef(str(job.export), model_hash(job.export))
    candidates = [candidate for m in job.mitigations for candidate in m.after_training(ctx, model)]
    return weights(candidates[0].model if candidates else model)


def weights(model: ModelRef) -> dict[str, torch.Tensor]:
    """Return the tensors of a model folder by name."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(Path(model.path).glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors
