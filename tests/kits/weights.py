"""Model folders of a few tensors, whole and spoiled in one way each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.kits.models import tiny

Tensors = dict[str, torch.Tensor]


def saved(folder: Path, model: Any = None) -> Path:
    """Save a model, a tiny Llama by default, and return its folder."""
    (model or tiny()).save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(file)).items()}, file, {"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def pickled(folder: Path, value: Any = None) -> None:
    """Replace the safetensors file by a pickle of `value`, by default of the same tensors."""
    file = folder / "model.safetensors"
    torch.save(load_file(file) if value is None else value, folder / "pytorch_model.bin")
    file.unlink()
