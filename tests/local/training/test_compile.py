"""Compiled layers: the losses of those that are not, whatever the strategy, and a resume that repeats every bit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from continual.models.forward import hidden_states
from continual.models.recompute import recompute_layers
from continual.testing import loop, two_ranks
from continual.testing.loop import job_of
from continual.testing.toys import context
from continual.training.compiled import compile_layers
from continual.training.job import TrainJob
from tests.kits.models import tiny

STEPS, HALF = 6, 3
LIVE = {"type": "context_free", "ratio": 0.75, "weight": 0.5, "loss": "kl", "held_out": 2}
"""3 rows of replay per step beside 4 of the task: passes of 2 rows, and a last one of 1 row."""
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"micro_rows": 2},
    "layers run again": {"micro_rows": 2, "activation_checkpointing": True},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"workers": 2},
    "ddp, compiled": {"workers": 2, "compile": True},
    "fsdp, compiled, layers run again": {
        "workers": 2, "strategy": "fsdp", "compile": True, "activation_checkpointing": True
    },
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
]


def job(folder: Path, **train: Any) -> TrainJob:
    ctx = context(folder, [LIVE], **train)
    return TrainJob(**{**vars(job_of(ctx)), "steps": STEPS})


def numbers(records: list[dict[str, Any]]) -> list[list[float]]:
    """Return of every step what was computed: losses by stream, gradient norm, drift if it was measured."""
    return [[*r["loss"].values(), r["gradient_norm"], *r.get("drift", {}).values()] for r in records]


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_losses_are_those_without_and_a_resume_repeats_the_bits(tmp_path: Path, name: str) -> None:
    expected, _ = loop.run(job(tmp_path / "plain", **OPTIONS[name]))
    assert all(len(values) > 2 for values in numbers(expected)), "the task and the replay"

    counters.clear()
    compiled = job(tmp_path / "compiled", **OPTIONS[name], compile=True)
    found, worker = loop.run(compiled)
    np.testing.assert_allclose(np.concatenate(numbers(found)), np.concatenate(numbers(expected)), rtol=1e-5, atol=1e-5)
    assert found[-1]["drift"], "a pass without gradients is among them"
    # The trained model and its teacher, each for one row and for more, and the same in eval mode: none for each layer.
    assert 2 <= counters["stats"]["unique_graphs"] <= 6
    assert not counters["graph_break"]

    interrupted = job(tmp_path / "interrupted", **OPTIONS[name], compile=True, checkpoint_every=HALF)
    loop.run(interrupted, until=HALF)
    resumed, again = loop.run(interrupted)
    assert numbers(resumed) == numbers(found)
    for (key, value), (other, repeated) in zip(
        worker.strategy.module.model.state_dict().items(), again.strategy.module.model.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(value, repeated), key


@pytest.mark.parametrize("compiled", [False, True])
def test_layers_that_run_again_keep_little(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    compile_ = torch.compile  # without kernels: what is kept is decided before they are made
    backend = "aot_eager_decomp_partition"
    monkeypatch.setattr(torch, "compile", lambda call, **options: compile_(call, backend=backend, **options))
    kept = {}
    for again in (False, True):
        model = tiny(num_hidden_layers=3).train()
        if again:
            recompute_layers(model, reentrant=False)
        if compiled:
            compile_layers([model])
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, weights: set[int] = weights, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(0 if tensor.untyped_storage().data_ptr() in weights else tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden_states(model, torch.arange(32).view(2, 16), torch.arange(16).expand(2, 16))
        kept[again] = sum(sizes)
    assert kept[True] < 0.3 * kept[False]


def test_two_ranks_train_as_without(tmp_path: Path) -> None:
    jobs = {"toy": {name: job(tmp_path / name, **train) for name, train in STRATEGIES.items()}}
    losses = two_ranks.losses_of(jobs, tmp_path)["toy"]
    for name in STRATEGIES:
        assert len(losses[name]) == STEPS
        for step, (expected, found) in enumerate(zip(losses["ddp"], losses[name], strict=True), 1):
            title = f"losses of step {step} under {name}"
            np.testing.assert_allclose(list(found.values()), list(expected.values()), 1e-5, 1e-5, err_msg=title)
