"""A trained state as a folder that `AutoModelForCausalLM.from_pretrained` and vLLM load."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from continual.contract.mitigation import Mitigation
from continual.models import load_model
from continual.models.files import copy_generation_settings, copy_tokenizer
from continual.training.checkpoints import publish
from continual.training.job import TrainJob


def export_model(
    job: TrainJob, state: dict[str, torch.Tensor], folder: Path, mitigations: Sequence[Mitigation] = ()
) -> None:
    """Publish `state` (full weights by name, float32) as a model folder in the dtype of the model it came from.

    Adapters are put back and undone by those who made them, on a fresh copy of the stage-start model.
    """
    model = load_model(job.model.path, "float32")
    undo = [u for m in mitigations if (u := m.adapt(model)) is not None]
    model.load_state_dict(state, strict=True)
    for put_back in reversed(undo):
        model = put_back(model)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save_pretrained(temporary, safe_serialization=True)
    copy_tokenizer(job.tokenizer, temporary)
    copy_generation_settings(job.model.path, temporary)
    publish(temporary, folder, {"steps": job.steps})
