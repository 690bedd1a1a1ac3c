"""On a GPU steps round the inputs of float32 products, and what is measured between them does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.testing import loop
from continual.testing.toys import context, without_ray
from continual.training.drift import Drift
from continual.training.precision import all_bits, round_products
from continual.training.step import Stepper


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_products_are_rounded_on_a_gpu_alone() -> None:
    round_products(torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"
    round_products(torch.device("cuda"))
    assert torch.get_float32_matmul_precision() == "high"
    with pytest.raises(ValueError, match="x"), all_bits():
        assert torch.get_float32_matmul_precision() == "highest"
        raise ValueError("x")
    assert torch.get_float32_matmul_precision() == "high"


def test_drift_is_measured_with_all_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    kl = {"type": "context_free", "loss": "kl", "held_out": 2}
    worker = loop.worker_of(loop.job_of(context(tmp_path, [kl])))
    seen, loss_sum = [], Stepper.loss_sum

    def watched(self: Stepper, *arguments: Any) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return loss_sum(self, *arguments)

    monkeypatch.setattr(Stepper, "loss_sum", watched)
    round_products(torch.device("cuda"))
    assert worker.drift() == {"context_free": Drift(0.0, 0.0)}, "the teacher is the model"
    assert set(seen) == {"highest"}
    assert torch.get_float32_matmul_precision() == "high"
