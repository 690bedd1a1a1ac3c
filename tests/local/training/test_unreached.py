"""Parameters that rows of text do not reach: two gloo ranks train as one under every strategy, and export all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.contract.models import ModelRef
from continual.models import load_model, model_hash
from continual.testing import loop, two_ranks
from continual.testing.loop import job_of
from continual.testing.toys import context
from continual.training.checkpoints import step_folder
from continual.training.job import TrainJob
from tests.kits.families import EXPERTS, WIDE, family, with_vision
from tests.kits.weights import saved

HALF = two_ranks.STEPS // 2
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"workers": 2},
    "fsdp": {"workers": 2, "strategy": "fsdp"},
    "fsdp, layers run again": {"workers": 2, "strategy": "fsdp", "activation_checkpointing": True},
    "zero2": {"workers": 2, "strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"workers": 2, "strategy": "deepspeed", "zero_stage": 3},
    "zero3, layers run again": {
        "workers": 2,
        "strategy": "deepspeed",
        "zero_stage": 3,
        "activation_checkpointing": True,
    },
}
MODELS = {"vision": with_vision, "lora": with_vision, "indexed": lambda: family("HYV4", **WIDE, **EXPERTS)}
"""The last one chooses what it attends to, and its experts, without a gradient."""


def job(folder: Path, name: str, kind: str, **train: Any) -> TrainJob:
    """Return the job of a stage on a model of its own; exported in the middle."""
    mitigation = [{"type": "lora", "rank": 4, "from_stage": 1}] if name == "lora" else []
    made = job_of(context(folder / name / kind, mitigation, **train))
    model = folder / "models" / name
    if not model.is_dir():
        saved(model, MODELS[name]())
    reference = ModelRef(str(model), model_hash(model))
    attention = "" if name == "indexed" else made.attention  # that family has an attention of its own
    return replace(made, model=reference, tokenizer=str(model), evaluate_every=HALF, attention=attention)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unreached")


@pytest.fixture(scope="module")
def jobs(folder: Path) -> dict[str, dict[str, TrainJob]]:
    jobs = {name: {kind: job(folder, name, kind, **train) for kind, train in STRATEGIES.items()} for name in MODELS}
    return jobs | {"indexed": {kind: jobs["indexed"][kind] for kind in ("ddp", "fsdp")}}


@pytest.fixture(scope="module")
def losses(jobs: dict[str, dict[str, TrainJob]], folder: Path) -> dict[str, dict[str, two_ranks.Losses]]:
    return two_ranks.losses_of(jobs, folder)


def export(job: TrainJob) -> dict[str, torch.Tensor]:
    return dict(load_model(str(step_folder(job.files.evaluations, HALF)), "float32").named_parameters())


@pytest.mark.parametrize("name", ["vision", "lora"])
def test_two_ranks_train_as_one_and_export_everything(
    jobs: dict[str, dict[str, TrainJob]], losses: dict[str, dict[str, two_ranks.Losses]], folder: Path, name: str
) -> None:
    single = job(folder, name, "one")
    records, _ = loop.run(single)
    expected = [record["loss"] for record in records]
    assert expected[-1]["task"] < expected[0]["task"]
    start, alone = dict(load_model(single.model.path, "float32").named_parameters()), export(single)
    for kind in STRATEGIES:
        two_ranks.assert_equal({"ddp": expected, kind: losses[name][kind]})
        exported = export(jobs[name][kind])
        assert exported.keys() == start.keys()
        for key, value in exported.items():
            torch.testing.assert_close(value, alone[key], rtol=1e-5, atol=1e-5)
            if "vision_tower" in key or "multi_modal_projector" in key:
                assert torch.equal(value, start[key]), key
    assert any(not torch.equal(alone[key], start[key]) for key in start)


def test_two_ranks_wait_for_no_gradient_that_never_comes(
    jobs: dict[str, dict[str, TrainJob]], losses: dict[str, dict[str, two_ranks.Losses]], folder: Path
) -> None:
    records, _ = loop.run(job(folder, "indexed", "one"))
    for kind in ("ddp", "fsdp"):
        tasks = [loss["task"] for loss in losses["indexed"][kind]]
        # Rounding decides between experts from the second step on.
        assert tasks[0] == pytest.approx(records[0]["loss"]["task"], rel=1e-6)
        assert tasks[-1] < tasks[0]
        assert set(export(jobs["indexed"][kind])) == set(export(job(folder, "indexed", "one")))
