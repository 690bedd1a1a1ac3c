"""What the tests of methods share: the toys and the loop of `continual.testing`, and a shorter run of it."""

from typing import Any

from continual.testing.loop import CPU, batch_of, job_of, worker_of
from continual.testing.toys import (
    ROWS,
    STEPS,
    TOKENS,
    VOCABULARY,
    Offline,
    context,
    model_ref,
    models,
    packed,
    score_in_process,
    sequence,
    stored,
    without_ray,
)
from continual.training.job import TrainJob
from continual.training.worker import Worker

__all__ = [
    "CPU", "ROWS", "STEPS", "TOKENS", "VOCABULARY", "Offline", "batch_of", "context", "job_of", "model_ref", "models",
    "packed", "score_in_process", "sequence", "stored", "train", "without_ray", "worker_of",
]  # fmt: skip


def train(job: TrainJob, steps: int = STEPS) -> tuple[list[dict[str, Any]], Worker]:
    """Records of the first steps, and the worker behind them; without measurements, checkpoints and records on disk."""
    worker = worker_of(job)
    for step in range(steps):
        worker.train_step(batch_of(job, step), stop=False)
    return list(worker.read()), worker
