"""Every method at strength zero, its code at work: 50 steps of it are 50 steps of plain fine-tuning."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from continual.contract.models import ModelRef
from continual.contract.registry import MITIGATIONS
from continual.models import model_hash
from continual.run.services import StageContext
from continual.training.job import TrainJob
from tests.kits import baselines as kit

STEPS = 50
DATA = {"type": "jsonl", "path": "x.jsonl", "text": "t"}
CACHED = {"loss": "kl", "teacher": "cached", "teacher_top_k": 8}
REPLAYS: list[dict[str, Any]] = [
    {"type": "context_free", "loss": "nll"},
    {"type": "context_free", "loss": "kl"},
    {"type": "context_free", **CACHED},
    {"type": "contextual", "loss": "nll"},
    {"type": "contextual", "loss": "kl"},
    {"type": "pretraining_subset", "data": DATA, "loss": "nll"},
    {"type": "pretraining_subset", "data": DATA, "loss": "kl"},
    {"type": "pretraining_subset", "data": DATA, **CACHED},
    {"type": "task_replay"},
]
ANCHORS: list[dict[str, Any]] = [
    {"type": "l2_start"},
    {"type": "ewc", "estimate_on": "task", "documents": 8},
    {"type": "ewc", "estimate_on": "context_free", "documents": 8},
]
OTHERS = {
    "easy_samples": "all weights one",
    "weight_average": "alpha one",
    "lora": "has no zero: with nothing of the adapter nothing is trained; what it starts from is compared",
    "instruction_synthesis": "needs a chat model; in the loop its stream is the `nll` one of `pretraining_subset`",
}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


def context(folder: Path, mitigation: list[dict[str, Any]]) -> StageContext:
    ctx = kit.context(folder, mitigation)
    return dataclasses.replace(ctx, view=dataclasses.replace(ctx.view, steps=STEPS))


def train(job: TrainJob) -> list[dict[str, float]]:
    """The losses of all steps."""
    return [record["loss"] for record in kit.train(job, STEPS)[0]]


def task(losses: list[dict[str, float]]) -> list[float]:
    return [loss["task"] for loss in losses]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    found = task(train(kit.job_of(context(tmp_path_factory.mktemp("plain"), []))))
    assert found[-1] < 0.9 * found[0], "it learns, so that a step which differs would show"
    return found


def test_no_method_is_missing_here() -> None:
    assert {value["type"] for value in [*REPLAYS, *ANCHORS]} | set(OTHERS) >= set(MITIGATIONS.names())


def identifier(value: dict[str, Any]) -> str:
    return "-".join(str(value[key]) for key in ("type", "loss", "teacher", "rows") if key in value)


@pytest.mark.parametrize("options", REPLAYS, ids=identifier)
def test_a_replay_of_weight_zero(tmp_path: Path, options: dict[str, Any], plain: list[float]) -> None:
    losses = train(kit.job_of(context(tmp_path, [{**options, "weight": 0.0}])))
    assert all(loss[options["type"]] > 1e-4 for loss in losses[1:]), "it was read, and its loss computed"
    np.testing.assert_allclose(task(losses), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", ANCHORS, ids=identifier)
def test_an_anchor_of_lambda_zero(tmp_path: Path, options: dict[str, Any], plain: list[float]) -> None:
    job = kit.job_of(context(tmp_path, [{**options, "weight": 0.0}]))
    losses = train(job)
    assert [loss[f"anchor/{options['type']}"] for loss in losses] == [0.0] * STEPS
    np.testing.assert_allclose(task(losses), plain, rtol=0, atol=1e-6)
    pulled = dataclasses.replace(
        job, penalties=tuple(dataclasses.replace(penalty, coefficient=10.0) for penalty in job.penalties)
    )
    assert max(abs(np.subtract(task(train(pulled)), plain))) > 1e-3, "the same anchor with a weight is not plain"


@pytest.mark.parametrize("per", ["sample", "token"])
def test_easy_samples_of_equal_losses_weigh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: list[float], per: str
) -> None:
    def equal(model: Any, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"nll": np.full(rows["ids"].shape, 2.0, np.float32)}

    monkeypatch.setattr("continual.scoring.columns.nll_columns", equal)
    job = kit.job_of(context(tmp_path, [{"type": "easy_samples", "per": per, "normalise": "mean"}]))
    assert job.streams[0].token_weights
    np.testing.assert_allclose(task(train(job)), plain, rtol=0, atol=1e-6)


def test_an_average_of_alpha_one_goes_on_like_the_trained_model(tmp_path: Path) -> None:
    ctx = context(tmp_path, [{"type": "weight_average", "alpha": 1.0}])
    job = kit.job_of(ctx)
    _, worker = kit.train(job, 5)
    worker.export(job.export)
    trained = ModelRef(str(job.export), model_hash(job.export))
    [candidate] = job.mitigations[0].after_training(ctx, trained)
    assert candidate.model.path != trained.path
    following = [
        task(train(dataclasses.replace(job, model=model, mitigations=()))) for model in (trained, candidate.model)
    ]
    np.testing.assert_allclose(following[1], following[0], rtol=0, atol=1e-6)


def test_an_adapter_begins_as_the_model_before_it(tmp_path: Path, plain: list[float]) -> None:
    """At its start the adapter adds nothing: the first loss is plain training's, and its export the model before."""
    ctx = context(tmp_path, [{"type": "lora", "rank": 4, "alpha": 64.0}])
    job = kit.job_of(ctx)
    worker = kit.worker_of(job)
    worker.export(job.export)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (ctx.stage_start.path, job.export))
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=0, atol=0)
    losses = task(train(job))
    assert losses[0] == pytest.approx(plain[0], abs=1e-6)
    assert abs(losses[-1] - plain[-1]) > 1e-3, "and then it goes its own way"
