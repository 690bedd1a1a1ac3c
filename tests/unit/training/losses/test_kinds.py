"""Losses as objects: found by name, equal by kind, and open to outside packages without a change in the trainer."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from continual.contract.registry import LOSSES
from continual.run.reuse import stage_inputs
from continual.training.job import TrainJob
from continual.training.losses.kinds import Kl, Nll, TopK
from continual.training.module import LossModule
from tests.kits import baselines as kit
from tests.kits.models import tiny
from tests.unit.training.test_loss_module import DOCUMENTS, assert_same, gradients, packed

FOCAL, EXCESS = (f"tests.unit.training.losses.outside:{name}" for name in ("Focal", "Excess"))


def test_the_registered_losses_need_no_torch() -> None:
    code = (
        "import sys; from continual.contract.registry import LOSSES; "
        "[LOSSES.load(name)() for name in ('nll', 'kl')]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "kind"), [("nll", Nll), ("kl", Kl)])
def test_a_name_stands_for_a_kind(name: str, kind: type) -> None:
    assert LOSSES.load(name) is kind
    assert kind.name == name


def test_losses_of_a_kind_are_equal_and_travel() -> None:
    assert Kl() == Kl()
    assert Kl() != TopK()
    assert pickle.loads(pickle.dumps(Kl())) == Kl()


def test_a_divergence_measures_drift() -> None:
    assert Kl().measures_drift
    assert TopK().measures_drift
    assert not Nll().measures_drift


def test_only_kl_has_a_cached_form() -> None:
    assert Kl.cached is TopK
    assert Nll.cached is None


@pytest.mark.parametrize("chunk_tokens", [3, 1000])
def test_an_outside_loss_equals_its_formula_in_the_module(chunk_tokens: int) -> None:
    model, batch = tiny(), packed(DOCUMENTS)
    value = LossModule(model, chunk_tokens, None)(**batch, loss=LOSSES.load(FOCAL)())
    value.backward()
    ours = gradients(model)
    expected = focal(model.double(), batch)
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    assert_same(ours, gradients(model), 2e-5)


def focal(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The sum in float64 over whole rows, whose documents the model keeps apart by their positions."""
    ids = batch["ids"].long()
    logits = model(ids, position_ids=batch["positions"].long(), use_cache=False).logits[:, :-1]
    p = torch.softmax(logits, -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return -(batch["weights"][:, 1:].double() * (1 - p) ** 2 * p.log()).sum()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    """A stage with the model's stored losses next to a replay stream."""
    kit.without_ray(monkeypatch)
    ctx = kit.context(tmp_path, [{"type": "context_free", "loss": "nll", "held_out": 4}])
    job = kit.job_of(ctx)
    columns = ctx.score(ctx.stage_start, job.streams[1].rows, what="nll")
    return with_replay(job, columns=columns)


def with_replay(job: TrainJob, **changes: Any) -> TrainJob:
    return dataclasses.replace(job, streams=(job.streams[0], dataclasses.replace(job.streams[1], **changes)))


def test_a_stream_trains_with_an_outside_loss(job: TrainJob) -> None:
    records, _ = kit.train(with_replay(job, loss=LOSSES.load(FOCAL)()))
    values = [record["loss"]["context_free"] for record in records]
    assert values[-1] < values[0]


def test_a_loss_on_stored_columns_reads_the_rows_own(job: TrainJob) -> None:
    """Away from the model whose losses are stored: the mean over trained tokens of what exceeds them, in float64."""
    job = with_replay(job, loss=LOSSES.load(EXCESS)())
    worker, batch = kit.worker_of(job), kit.batch_of(job, 0)
    rows = batch["context_free"]
    assert rows["nll"].shape == (*rows["ids"].shape, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in worker.strategy.module.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    means = worker.stepper.forward_backward(batch, worker.stepper.counts(batch, stop=False)[0])
    found = worker.stepper.named(means.tolist())["context_free"]
    nll = []
    for model in (worker.strategy.module.model, AutoModelForCausalLM.from_pretrained(job.model.path)):
        logits = model.double()(rows["ids"], position_ids=rows["positions"], use_cache=False).logits[:, :-1]
        nll.append(-torch.log_softmax(logits, -1).gather(-1, rows["ids"][:, 1:, None]).squeeze(-1))
    weights = rows["weights"][:, 1:].double()
    expected = (weights * (nll[0] - nll[1]).clamp(min=0)).sum() / (weights > 0).sum()
    assert float(expected) > 0.01
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_the_loss_is_in_the_stages_address(job: TrainJob) -> None:
    no_scorer: Any = None
    losses = [Nll(), LOSSES.load(FOCAL)(), LOSSES.load(EXCESS)()]
    addresses = [stage_inputs(with_replay(job, loss=loss), no_scorer)["streams"] for loss in losses]
    assert all(addresses.count(address) == 1 for address in addresses)
