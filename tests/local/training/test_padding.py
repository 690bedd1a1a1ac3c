"""Fewer rows of a stream than workers: rows of padding are left out, and two ranks train as one all the same."""

from pathlib import Path
from typing import Any

import pytest

from continual.testing import loop, two_ranks
from continual.testing.toys import context, without_ray
from continual.training.job import TrainJob
from continual.training.step import micro_batches

REPLAY = {"type": "context_free", "loss": "kl", "ratio": 0.25, "held_out": 2}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"workers": 2},
    "ddp, row by row": {"workers": 2, "micro_rows": 1},
    "fsdp": {"workers": 2, "strategy": "fsdp"},
    "zero2": {"workers": 2, "strategy": "deepspeed", "zero_stage": 2},
}


def job(folder: Path, **train: Any) -> TrainJob:
    return loop.job_of(context(folder, [REPLAY], epsilon=1e-4, **train))


def test_two_ranks_of_which_one_has_no_row_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    records, _ = loop.run(job(tmp_path / "one"))
    jobs = {name: job(tmp_path / name, **train) for name, train in STRATEGIES.items()}
    assert [stream.rows_per_step for stream in jobs["ddp"].streams][1] == 1
    passes = [[stream.name for stream, _ in micro_batches(jobs["ddp"], rank, 2)] for rank in (0, 1)]
    assert passes == [["task", "context_free"], ["task"]]
    losses = two_ranks.losses_of({"padded": jobs}, tmp_path)["padded"]
    two_ranks.assert_equal({**losses, "ddp": [record["loss"] for record in records], "two ranks": losses["ddp"]})
