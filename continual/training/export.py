"""A trained state as a folder that `AutoModelForCausalLM.from_pretrained` and vLLM load."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from continual.contract.mitigation import Mitigation
from continual.training.checkpoints import publish
from continual.training.job import TrainJob

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Tokenizer files byte for byte: a re-saved tokenizer may hash, or even tokenise, differently."""
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def export_model(
    job: TrainJob, state: dict[str, torch.Tensor], folder: Path, mitigations: Sequence[Mitigation] = ()
) -> None:
    """Publish `state` (full weights by name, float32) as a model folder in the dtype of the model it came from.

    Adapters are put back and undone by those who made them, on a fresh copy of the stage-start model.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(job.model.path, dtype=torch.float32)
    undo = [u for m in mitigations if (u := m.adapt(model)) is not None]
    model.load_state_dict(state, strict=True)
    for put_back in reversed(undo):
        model = put_back(model)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save_pretrained(temporary, safe_serialization=True)
    copy_tokenizer(Path(job.tokenizer), temporary)
    source = Path(job.model.path) / "generation_config.json"
    if source.is_file():
        shutil.copyfile(source, temporary / source.name)
    publish(temporary, folder, {"steps": job.steps})
