"""A checkpoint is written beside the next steps: it holds the step that asked for it, and what goes wrong is told."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.testing import loop
from continual.testing.toys import context, without_ray
from continual.training import states
from continual.training import worker as room
from continual.training.checkpoints import newest_valid, steps_found
from continual.training.job import TrainJob


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    without_ray(monkeypatch)
    return loop.job_of(context(tmp_path, [], checkpoint_every=2))


def weights(worker: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in worker.strategy.module.model.state_dict().items()}


def test_steps_go_on_while_a_checkpoint_is_published(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, going_on = room.publish_folder, threading.Event()

    def late(*arguments: Any) -> None:
        assert going_on.wait(60)
        publish(*arguments)

    monkeypatch.setattr(room, "publish_folder", late)
    worker = loop.worker_of(job)
    for step in range(2):
        worker.train_step(loop.batch_of(job, step), False)
    worker.checkpoint()
    then = weights(worker)
    worker.train_step(loop.batch_of(job, 2), False)
    assert newest_valid(job.checkpoints) == (0, None)
    going_on.set()
    worker.settle()
    assert steps_found(job.checkpoints) == [2]
    again = loop.worker_of(job)
    assert again.step == 2
    assert all(torch.equal(value, then[name]) for name, value in weights(again).items())
    assert any(not torch.equal(value, then[name]) for name, value in weights(worker).items())


def test_a_checkpoint_that_cannot_be_written_ends_the_stage(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "publish_folder", full)
    with pytest.raises(OSError, match="No space left"):
        loop.run(job)
    assert newest_valid(job.checkpoints) == (0, None)


def test_a_fault_inside_of_torchs_writer_is_told_as_itself(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    def refused(*arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", refused)
    with pytest.raises(PermissionError, match="Permission denied"):
        loop.run(job)


def test_a_large_checkpoint_is_spread_over_files(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "FILE_BYTES", 4096)
    worker = loop.worker_of(job)
    for step in range(2):
        worker.train_step(loop.batch_of(job, step), False)
    worker.checkpoint()
    worker.settle()
    assert len(list(job.checkpoints.rglob("*.safetensors"))) > 3
    own, again = weights(worker), weights(loop.worker_of(job))
    assert all(torch.equal(value, own[name]) for name, value in again.items())
