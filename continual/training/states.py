"""Weights and AdamW's state in a checkpoint: safetensors that all ranks write, read again by any number of ranks.

torch.distributed.checkpoint does the work, with its safetensors storage: its own format keeps a pickle beside the
tensors, which could run code.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from continual.errors import ContinualError, describe

FOLDER = "state"
"""Where the files are, below a checkpoint's folder."""
FILE_BYTES = 2 << 30
"""Of a rank's files, but for one tensor more."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter."""


def save_states(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, group: dist.ProcessGroup | None
) -> Future[Any]:
    """Write the model's tensors and the optimizer's state below `folder`, see `save_tensors`."""
    return save_tensors(folder, dict(_tensors(model, optimizer)), group)


def save_tensors(folder: Path, tensors: dict[str, Tensor], group: dist.ProcessGroup | None) -> Future[Any]:
    """Write named tensors below `folder`, from a copy: the caller may train on.

    Called by all ranks, with the same names; each writes a part: of a DTensor what it holds. `group` is a gloo group of
    their own, None without ranks. Rank 0's future is done when the files of all ranks are written.
    """
    import torch.distributed.checkpoint as dcp

    # It remarks at every save that it writes no index of the shards (torch 2.13), which nobody reads.
    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.WARNING)
    places = _files(tensors, 1 if group is None else dist.get_world_size(group))
    writer = dcp.HuggingFaceStorageWriter(str(folder / FOLDER), places, save_distributed=True)
    writer.per_thread_copy_ahead = 0  # the copies are on the CPU; else its thread would open every worker's first GPU
    with _one_sentence():
        future = dcp.async_save(_flat(tensors), storage_writer=writer, process_group=group, no_dist=group is None)
    assert isinstance(future, Future)
    return future


def written(future: Future[Any]) -> None:
    """Wait for what `save_tensors` writes; raise what went wrong, as itself."""
    with _one_sentence():
        future.result()


def load_states(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, group: dist.ProcessGroup | None
) -> None:
    """Read into a model and an optimizer what `save_states` wrote, bit for bit; called by all ranks.

    The number of ranks, and how tensors are spread over them, may be another one. Raises ContinualError unless the
    folder has what the model needs.
    """
    known = saved_names(folder)
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in known:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if optimizer.defaults.get("fused") else "cpu"),
                **{kind: torch.zeros_like(parameter, requires_grad=False) for kind in MOMENTS[1:]},
            }
    load_tensors(folder, dict(_tensors(model, optimizer)), known, group)


def saved_names(folder: Path) -> set[str]:
    """Return the names of the tensors below `folder`. Raises ContinualError if an earlier version wrote it."""
    import torch.distributed.checkpoint as dcp

    if not (folder / FOLDER).is_dir():
        problem = f"{folder} has no {FOLDER}/, which this version resumes from"
        raise ContinualError(f"{problem}; delete its folder, or finish the stage with the version that began it")
    return set(dcp.HuggingFaceStorageReader(str(folder / FOLDER)).read_metadata().state_dict_metadata)


def load_tensors(folder: Path, wanted: dict[str, Tensor], known: set[str], group: dist.ProcessGroup | None) -> None:
    """Read into `wanted` the tensors below `folder` of these names; called by all ranks, each reads what it holds.

    `known`: its `saved_names`. Raises ContinualError unless all are among them.
    """
    import torch.distributed.checkpoint as dcp

    if missing := wanted.keys() - known:
        raise ContinualError(f"the checkpoint in {folder} lacks {len(missing)} tensors, such as `{min(missing)}`")
    reader = dcp.HuggingFaceStorageReader(str(folder / FOLDER))
    with _one_sentence():
        dcp.load(_flat(wanted), storage_reader=reader, process_group=group, no_dist=group is None)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Raise what went wrong on the first rank that failed: DCP wraps it in a BaseException with all tracebacks."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        wrapped = next(iter(error.failures.values()))
        cause = wrapped[0] if isinstance(wrapped, tuple) else wrapped
        if isinstance(cause, OSError | ContinualError):
            raise cause from None
        raise ContinualError(f"the checkpoint cannot be read or written ({describe(cause)})") from None


def _files(tensors: Mapping[str, Tensor], ranks: int) -> dict[str, int]:
    """Return the number of the file of each tensor, from 1: a file is put together in memory before it is written."""
    places, size = {}, 0
    for name, tensor in tensors.items():
        places[name] = 1 + size // FILE_BYTES
        size += tensor.numel() * tensor.element_size() // ranks
    return places


def _flat(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same tensors; numbers have one dimension, as slices of files need."""
    return {name: tensor if tensor.ndim else tensor.reshape(1) for name, tensor in tensors.items()}


def model_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer of a model once, by name."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor once, by name, without its gradient."""
    for name, tensor in model_tensors(model):
        yield f"model.{name}", tensor.detach()
    for name, parameter in model.named_parameters():
        for kind in MOMENTS:
            if kind in (state := optimizer.state.get(parameter, {})):
                yield f"{kind}.{name}", state[kind]
