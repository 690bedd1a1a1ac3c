"""Checkpoints inside a stage: whole or absent, verified before use, newest valid first.

Ray Train's own checkpoints are not used: it would give a damaged one to every restart until its failures run out.
"""

import pickle
import shutil
from pathlib import Path
from typing import Any

from continual.errors import ContinualError
from continual.ledger.folder import step_name, steps_in
from continual.store import folder_damage

NUMPY_KINDS = ("uint32", "int64", "int32", "float64", "float32", "bool")
"""Types of the arrays that a checkpoint may hold: those of NumPy's generator, and of what a method keeps."""


def step_folder(folder: Path, step: int) -> Path:
    return folder / step_name(step)


def steps_found(folder: Path) -> list[int]:
    """Return the steps with a published checkpoint, valid or not, newest first; files, links and copies are none."""
    entries = folder.glob("step-*")
    own = {path for path in entries if path.is_dir() and not path.is_symlink()}
    return sorted((step for step in steps_in(folder) if step_folder(folder, step) in own), reverse=True)


def newest_valid(folder: Path) -> tuple[int, Path | None]:
    """Return step and folder of the newest checkpoint that is whole, or (0, None).

    Every file of a checkpoint is hashed.
    """
    for step in steps_found(folder):
        path = step_folder(folder, step)
        if folder_damage(path) is None:
            return step, path
    return 0, None


def newest_for_all(folder: Path, rank: int, world_size: int, device: Any) -> tuple[int, Path | None]:
    """Return what `newest_valid` would, where every rank reads a part of the files; called by all ranks."""
    import torch
    import torch.distributed as dist

    if world_size == 1:
        return newest_valid(folder)
    steps = [steps_found(folder)]
    dist.broadcast_object_list(steps, 0, device=device)  # a file may appear between their looks
    for step in steps[0]:
        path = step_folder(folder, step)
        damaged = torch.tensor(int(folder_damage(path, rank, world_size) is not None), device=device)
        dist.all_reduce(damaged)
        if not damaged:
            return step, path
    return 0, None


def prune(folder: Path, keep: int, newest: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints.

    `newest`: the step just published. Later checkpoints were corrupt at resume; delete them and do not count them.
    """
    steps = steps_found(folder)
    later = [step for step in steps if newest is not None and step > newest]
    for step in later + [step for step in steps if step not in later][keep:]:
        shutil.rmtree(step_folder(folder, step), ignore_errors=True)


def read_states(path: Path) -> Any:
    """Return what `torch.save` wrote into a checkpoint: tensors (on the CPU), NumPy arrays, and plain values.

    Nothing else is unpickled, so a file that somebody planted runs no code. Raises ContinualError for such a file.
    """
    import numpy as np
    import torch
    from numpy._core import multiarray

    arrays: list[Any] = [multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype]
    arrays += [type(np.dtype(kind)) for kind in NUMPY_KINDS]
    try:
        with torch.serialization.safe_globals(arrays):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        problem = f"{path} holds more than tensors, arrays and plain values, and is not read"
        raise ContinualError(f"{problem}; delete its folder to resume from an earlier checkpoint") from error
