"""Losses that stay on the device for some steps: the same records, written later, and no step that is not finite."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from continual.errors import ContinualError
from continual.ledger.lines import read_lines
from continual.ledger.records import Records
from continual.testing import loop
from continual.testing.toys import context, without_ray
from continual.training.checkpoints import steps_found
from continual.training.job import TrainJob
from continual.training.strategies import base
from continual.training.worker import Worker, run_steps

KL = {"type": "context_free", "loss": "kl", "held_out": 2}
TIMES = {"time", "seconds", "data_wait"}


def job_of(folder: Path, every: int) -> TrainJob:
    return loop.job_of(context(folder, [KL], log_every=every, checkpoint_every=5), folder / "stage")


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture(params=["read", "by the device"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether AdamW is one kernel, as on a GPU, which itself leaves out a step that is not finite."""
    if request.param == "by the device":
        monkeypatch.setattr(torch.optim, "AdamW", one_kernel(torch.optim.AdamW))
    return bool(request.param == "by the device")


def one_kernel(adamw: Any) -> Any:
    return lambda *given, **options: adamw(*given, **options | {"fused": True})


def test_records_are_those_of_every_step_and_late(tmp_path: Path, fused: bool) -> None:
    often, _ = loop.run(job_of(tmp_path / "1", 1))
    seldom, _ = loop.run(job_of(tmp_path / "3", 3))
    assert without_times(seldom) == without_times(often)
    # What is written together has one time to the millisecond or nearly so, and equal parts of the seconds.
    assert seldom[0]["seconds"] == seldom[1]["seconds"] == seldom[2]["seconds"]
    assert seldom[3]["seconds"] == seldom[4]["seconds"] != seldom[2]["seconds"], "a checkpoint needs them read"


def test_a_killed_stage_resumes_without_a_gap(tmp_path: Path) -> None:
    expected, _ = loop.run(job_of(tmp_path / "whole", 3))
    killed = job_of(tmp_path / "killed", 3)
    first, _ = loop.run(killed, until=8)
    assert [record["step"] for record in first] == [1, 2, 3, 4, 5, 6]
    resumed, _ = loop.run(killed)
    assert without_times(resumed) == without_times(expected)


def spoiled(job: TrainJob, step: int, weight: float = np.inf) -> Any:
    """Yield the arrays of all steps, those of one with a weight that makes the loss infinite."""
    for number in range(job.steps):
        arrays = loop.arrays(job, number)
        if number == step:
            arrays["task/weights"] = np.full_like(arrays["task/weights"], weight)
        yield arrays


def test_another_error_leaves_the_records_of_the_steps_before_it(tmp_path: Path) -> None:
    job = job_of(tmp_path, 3)
    worker = loop.worker_of(job)
    with pytest.raises(ContinualError, match="no position to learn from in step 5"):
        run_steps(worker, spoiled(job, 4, weight=0.0), Records(job.files.metrics, 0), job.files.stop)
    assert [record["step"] for record in read_lines(job.files.metrics)] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_ends_the_stage_before_it_is_learned(tmp_path: Path, fused: bool) -> None:
    expected = loop.worker_of(job_of(tmp_path / "expected", 3))
    for step in range(4):
        expected.train_step(loop.batch_of(expected.job, step), stop=False)
    job = job_of(tmp_path / "spoiled", 3)
    worker = loop.worker_of(job)
    with pytest.raises(ContinualError, match=r"the loss is not finite at step 5 .* lower `train\.learning_rate`"):
        run_steps(worker, spoiled(job, 4), Records(job.files.metrics, 0), job.files.stop)
    worker.settle()
    assert [record["step"] for record in read_lines(job.files.metrics)] == [1, 2, 3, 4]
    assert steps_found(job.checkpoints) == []
    if not fused:
        assert equal(worker, expected)


def test_the_device_leaves_a_step_out_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", one_kernel(torch.optim.AdamW))
    job = job_of(tmp_path, 3)
    worker, expected = loop.worker_of(job), loop.worker_of(job)
    for step in (0, 1, 2):
        batch = loop.batch_of(job, step)
        if step != 1:
            expected.train_step(batch, stop=False)
        else:
            batch["task"]["weights"] *= float("inf")
        worker.train_step(batch, stop=False)
    assert equal(worker, expected), "the other steps are learned as if it had not been"
    read = worker.read()
    assert next(read)["step"] == 1
    with pytest.raises(ContinualError, match="not finite at step 2"):
        next(read)


def equal(one: Worker, two: Worker) -> bool:
    pairs = zip(one.strategy.module.parameters(), two.strategy.module.parameters(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_a_step_that_must_be_left_out_is_known_where_it_is_read(tmp_path: Path) -> None:
    worker = loop.worker_of(job_of(tmp_path, 1))
    strategy: Any = worker.strategy
    assert strategy.step(0.1, partial(torch.full_like, fill_value=True, dtype=torch.bool))
    assert not strategy.step(0.1, base.not_finite)
