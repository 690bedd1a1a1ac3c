"""Teachers: one that is what the stage starts from is found inside the adapted model, and is the same teacher."""

from pathlib import Path
from typing import Any

import pytest
import torch

from continual.contract.mitigation import Mitigation
from continual.errors import ContinualError
from continual.testing import loop
from continual.testing.toys import context, without_ray
from continual.training import frozen
from continual.training.frozen import Unadapted
from continual.training.worker import adapt

KL = {"type": "context_free", "loss": "kl", "ratio": 1.0, "held_out": 2}
LORA = {"type": "lora", "rank": 4, "alpha": 64.0}


def trained(folder: Path, *mitigation: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor], Any]:
    """Return losses and drift of every step, the exported weights, and the only teacher."""
    ctx = context(folder, list(mitigation))
    job = loop.job_of(ctx)
    records, worker = loop.run(job)
    [teacher] = worker.stepper.teachers.values()
    kept = [{key: record.get(key) for key in ("loss", "drift", "gradient_norm")} for record in records]
    return kept, loop.continuing(ctx, job, worker), teacher


def test_the_base_of_an_adapted_model_is_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    records, weights, teacher = trained(tmp_path / "base", KL, LORA)
    assert isinstance(teacher, Unadapted)
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "_base", lambda job, model: None)
        expected, others, loaded = trained(tmp_path / "loaded", KL, LORA)
    assert isinstance(loaded, torch.nn.Module)
    assert records == expected
    assert records[0]["loss"]["context_free"] == 0.0
    assert records[-1]["loss"]["context_free"] > 1e-4, "the adapter has moved away from its base"
    assert all(torch.equal(weights[name], value) for name, value in others.items())


@pytest.mark.parametrize("mitigation", [(KL,), ({**KL, "model": "start"}, LORA)])
def test_other_teachers_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mitigation: tuple[dict[str, Any], ...]
) -> None:
    without_ray(monkeypatch)
    assert isinstance(trained(tmp_path, *mitigation)[2], torch.nn.Module)


def test_a_method_that_reads_weights_which_only_the_first_worker_has_is_told_so() -> None:
    class Reads(Mitigation):
        type: str = "reads"

        def adapt(self, model: Any, seed: int) -> None:
            float(model.weight.sum())

    with pytest.raises(ContinualError, match=r"`reads` reads weights .* write `train\.strategy: ddp`"):
        adapt(Reads(), torch.nn.Linear(2, 2, device="meta"), 0, weights=False)
    adapt(Reads(), torch.nn.Linear(2, 2), 0, weights=True)
