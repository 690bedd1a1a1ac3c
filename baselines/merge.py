"""Merge what several stages changed with PEFT's TIES or DARE, tensor by tensor."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from continual.api import Context, ModelRef, copy_settings, digest, load_model, model_hash, versions

Merge = Literal["ties", "dare_ties"]
"""A function of `peft.utils.merge_utils`."""


def merged(ctx: Context, models: Sequence[ModelRef], how: Merge, density: float, seed: int) -> ModelRef:
    """Return base + merge(task vectors) as a model in the store, computed in the cluster unless it is there.

    Args:
        ctx: The services of the stage.
        models: The base, and the model after each stage since; a stage's task vector is its model minus the one before.
        how: The merge.
        density: Share of the values of a task vector that it keeps: the largest (`ties`), or any, scaled up by
            1 / density (`dare_ties`).
        seed: Of the values that `dare_ties` draws.
    """
    inputs: dict[str, Any] = {"merge": how, "models": [model.hash for model in models], "density": density}
    inputs |= {"versions": versions(("peft",)), **({"seed": seed} if how == "dare_ties" else {})}
    artefact = ctx.store.artefact("models", inputs)
    with ctx.store.write(artefact, inputs) as writer:
        if writer is not None:
            import ray

            task = ray.remote(merge).options(num_cpus=0.5)
            with writer.files() as folder:
                ray.get(task.remote([model.path for model in models], how, density, seed, str(folder)))
            writer.finish()
    return ModelRef(str(artefact.path), model_hash(artefact.path))


def merge(models: list[str], how: Merge, density: float, seed: int, folder: str) -> None:
    """Write the merge into `folder`, computed in float32 and saved in the dtype of the last model, whose all else is.

    Memory: one model, and a tensor of each. The others lie meanwhile in files of `folder` that are opened, not read.
    """
    import torch
    from safetensors import safe_open

    parts = Path(folder, "parts")
    parts.mkdir()
    places = {
        path: _spilled(path, parts / f"{number}.safetensors") for number, path in enumerate(dict.fromkeys(models))
    }
    model = load_model(models[-1], "auto")
    with ExitStack() as opened, torch.no_grad():
        files = {path: opened.enter_context(safe_open(file, "pt")) for path, file in places.items()}
        for name, parameter in model.named_parameters():
            tensors = [files[path].get_tensor(name).float() for path in models]
            vectors = [after - before for before, after in pairwise(tensors)]
            parameter.copy_(tensors[0] + merged_vectors(vectors, how, density, f"{seed} {name}"))
    shutil.rmtree(parts)
    model.save_pretrained(folder, safe_serialization=True)
    copy_settings(models[-1], Path(folder))


def merged_vectors(vectors: list[Any], how: Merge, density: float, seed: str) -> Any:
    """Return one tensor's merge. What is drawn depends on `seed` alone, and other random numbers stay as they were."""
    import torch
    from peft.utils import merge_utils

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(digest(seed)[:12], 16))
        return getattr(merge_utils, how)(vectors, torch.ones(len(vectors)), density)


def _spilled(path: str, file: Path) -> Path:
    """Write the parameters of a model into one file; only this frame holds the model."""
    from safetensors.torch import save_file

    model = load_model(path, "auto")
    save_file({name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}, file)
    return file
