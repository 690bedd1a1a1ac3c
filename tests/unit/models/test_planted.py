"""A pickle that somebody planted among a model's files is not run."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from continual.errors import ConfigurationError
from continual.models.load import load_model
from tests.kits.project import write_model


class Planted:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_weights_that_would_run_a_command_are_refused(tmp_path: Path, how: str) -> None:
    folder, marker = write_model(tmp_path / "model"), tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    weights = {"lm_head.weight": Planted(marker)}
    if how == "torch.save":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(weights))
    with pytest.raises(ConfigurationError):
        load_model(str(folder), "float32", "cpu")
    assert not marker.exists()


def test_a_planted_file_beside_safetensors_is_not_read(tmp_path: Path) -> None:
    folder, marker = write_model(tmp_path / "model"), tmp_path / "ran"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.npy"):
        (folder / name).write_bytes(pickle.dumps(Planted(marker)))
    load_model(str(folder), "float32", "cpu")
    assert not marker.exists()
