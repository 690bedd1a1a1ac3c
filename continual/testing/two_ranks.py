"""Jobs in a process group of two ranks or more, on gloo and without Ray: ddp next to other strategies."""

import gc
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from continual.ledger.records import Records
from continual.testing import loop
from continual.training.job import TrainJob
from continual.training.worker import Worker, run_steps

RANKS = 2
STEPS = 20
"""Steps that the strategies are compared over."""
TOLERANCE = 1e-6

Losses = list[dict[str, float]]
"""By stream, in nats per token, of every step."""


def losses_of(jobs: dict[str, dict[str, TrainJob]], folder: Path, ranks: int = RANKS) -> dict[str, dict[str, Losses]]:
    """Return the losses of jobs by two names, all run in one process group, whose start costs more than the steps.

    A job goes on from its newest checkpoint, if it has one; its losses are those of the steps after that.
    """
    multiprocessing.set_forkserver_preload([__name__])
    mp.start_processes(_rank, (ranks, jobs, folder), nprocs=ranks, start_method="forkserver")
    return json.loads((folder / "losses.json").read_text())


def _rank(rank: int, ranks: int, jobs: dict[str, dict[str, TrainJob]], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    losses = {name: {key: _train(job, rank, ranks) for key, job in pair.items()} for name, pair in jobs.items()}
    if rank == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
    # DDP's reducer, freed after its process group, deadlocks with gloo's thread.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def _train(job: TrainJob, rank: int, ranks: int) -> Losses:
    worker = Worker(job, rank, ranks, loop.CPU)
    batches = (loop.arrays(job, step, rank, ranks) for step in range(worker.step, job.steps))
    records = Records(job.files.metrics, worker.step) if rank == 0 else None
    run_steps(worker, batches, records, job.files.stop)
    worker.close()
    return [record["loss"] for record in loop.read_lines(job.files.metrics)] if rank == 0 else []


def assert_equal(losses: dict[str, Losses]) -> None:
    """Check that every loss of every step equals that under `ddp`, absolutely and relatively within 1e-6."""
    for name, found in losses.items():
        assert len(found) == len(losses["ddp"]) == STEPS, f"steps of {name}"
        for step, (expected, other) in enumerate(zip(losses["ddp"], found, strict=True), 1):
            assert list(other) == list(expected), f"streams of step {step} under {name}"
            title = f"losses of step {step} under {name}"
            np.testing.assert_allclose(
                list(other.values()), list(expected.values()), TOLERANCE, TOLERANCE, err_msg=title
            )
