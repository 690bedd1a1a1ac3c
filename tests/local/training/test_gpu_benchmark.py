"""What is to be measured on a GPU runs on a CPU at tiny sizes, arm by arm, and keeps what it has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.throughput import gpu, sides

pytestmark = pytest.mark.slow


def test_every_arm_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput.gpu", "--tiny", "--output", str(tmp_path)]
    subprocess.run(command, cwd=sides.ROOT, check=True, timeout=900)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["arms"]) == list(gpu.ARMS)
    assert all(value is None or value >= 0 for arm in found["arms"].values() for value in arm.values())
    assert found["arms"]["training: kl 1:4, live teacher"]["tokens/s"] > 0


def test_an_arm_that_fails_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = ("--output", str(tmp_path), "--tiny", "no such arm", "loss: nll, ours")
    monkeypatch.setattr(sys, "argv", ["gpu", *arms])
    with pytest.raises(SystemExit, match="failed"):
        gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())["arms"]
    assert found["no such arm"] == {"failed": True}
    assert found["loss: nll, ours"]["ms"] > 0


def test_operations_are_those_of_a_matrix_product_counted_by_torch() -> None:
    """Six operations per weight and token, as torch counts a step of the model without attention over others."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = gpu.SIZES["tiny"]
    model = gpu._llama(size)
    rows = gpu._rows(size, 1, 0)
    with FlopCounterMode(display=False) as counted:
        model(input_ids=rows["ids"], use_cache=False).logits.float().square().sum().backward()
    products = sum(count for kind, count in counted.get_flop_counts()["Global"].items() if "attention" not in str(kind))
    attention = 6.0 * size.model["num_hidden_layers"] * size.model["hidden_size"] * size.document
    assert torch.isfinite(torch.tensor(products))
    assert products / size.row_tokens == pytest.approx(gpu._operations(size) - attention, rel=0.05)
