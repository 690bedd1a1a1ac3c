"""Other people's models and data through the command line, on the real small models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.e2e import command

pytestmark = pytest.mark.slow
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def write_sequence(folder: Path, model: Path, **changes: Any) -> Path:
    """Write the YAML of one stage of two tiny steps on `model`, over `stories.txt`, and return its path."""
    (folder / "stories.txt").write_text("Once upon a time there was a little girl who liked to play outside.\n" * 40)
    sequence = {
        "name": "foreign",
        "model": {"type": "pretrained", "source": str(model)},
        "stages": [{"name": "stories", "data": {"type": "text", "path": str(folder / "stories.txt")}, "steps": 2}],
        "train": {"batch_tokens": 256, "row_tokens": 128, "learning_rate": 1e-2},
        **changes,
    }
    file = folder / "foreign.yaml"
    file.write_text(yaml.safe_dump(sequence))
    return file


def test_a_bfloat16_model_keeps_its_dtype_and_its_files(shared: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(shared / "models" / "stories260k", model)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    for name in PROCESSORS:
        (model / name).write_text('{"do_resize": true}')
    finished = command.run(tmp_path, yaml=write_sequence(tmp_path, model))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    from continual.models import load_model, load_tokenizer

    exported = Path(command.summary(tmp_path, "foreign")["checkpoints"]["stories"])
    trained = load_file(exported / "model.safetensors")
    assert {tensor.dtype for tensor in trained.values()} == {torch.bfloat16}
    assert trained.keys() == tensors.keys()
    assert any(not torch.equal(trained[name], tensor) for name, tensor in tensors.items())
    for name in (*PROCESSORS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (exported / name).read_bytes() == (model / name).read_bytes(), name
    listed = json.loads((model / "generation_config.json").read_text())["eos_token_id"]
    assert set(listed) <= set(load_model(str(exported), "float32").generation_config.eos_token_id)
    assert (
        load_tokenizer(str(exported))("Once upon")["input_ids"] == load_tokenizer(str(model))("Once upon")["input_ids"]
    )


def test_a_model_without_its_head_is_refused_before_ray_starts(shared: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(shared / "models" / "stories260k", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    finished = command.run(tmp_path, yaml=write_sequence(tmp_path, model))
    assert finished.returncode == 2
    assert "model.source: " in finished.stderr
    assert "lack `lm_head.weight`" in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "foreign").exists()
    assert not (tmp_path / "store").exists()
