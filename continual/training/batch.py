"""One step's arrays, as the data set delivers them: as tensors by stream and column, and a hash of the row numbers."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.distributed as dist

from continual.contract.stream import Stream
from continual.training.order import first_ranks, in_order

INPUTS = ("ids", "positions", "weights")
"""Columns of the rows that every loss reads."""
DOCUMENTS = "documents"
"""The column that tells tokens of one document from those of others."""

Rows = dict[str, torch.Tensor]
Batch = dict[str, Rows]
"""Tensors by stream and column, on the CPU."""


def to_tensors(stream: Stream, arrays: Mapping[str, np.ndarray]) -> Rows:
    """Return a stream's arrays [B, width] as tensors: integers as int64, others as float32.

    The inputs are [B, T]; the columns that the loss names are [B, T, k].
    """
    rows: Rows = {}
    for name in (*INPUTS, *stream.loss.columns):
        tensor = torch.from_numpy(np.array(arrays[name]))
        tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
        rows[name] = tensor if name in INPUTS else tensor.reshape(*rows["ids"].shape, -1)
    return rows


def to_batch(streams: Iterable[Stream], arrays: Mapping[str, np.ndarray]) -> Batch:
    """Return the tensors of one step, given its arrays `<stream>/<column>` [1, B, width]."""
    return {
        stream.name: to_tensors(
            stream, {name: arrays[f"{stream.name}/{name}"][0] for name in (*INPUTS, *stream.loss.columns)}
        )
        for stream in streams
    }


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to `device`. With a GPU the call does not wait for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def rows_hash(
    arrays: Mapping[str, np.ndarray],
    streams: Iterable[Stream],
    world_size: int,
    group: dist.ProcessGroup | None = None,
) -> dict[str, str]:
    """Return by stream a hash of the row numbers that all ranks read in a step, equal for any number of ranks.

    `group`: one in which CPUs talk; None: that of all ranks.
    """
    hashes = {}
    for name, first in first_ranks(streams, world_size).items():
        numbers = torch.from_numpy(np.array(arrays[f"{name}/row"][0]))
        shares = [torch.empty_like(numbers) for _ in range(world_size)] if world_size > 1 else [numbers]
        if world_size > 1:
            dist.all_gather(shares, numbers, group=group)
        read = in_order([share.numpy() for share in shares], first).astype(np.int64)
        hashes[name] = hashlib.sha256(read.tobytes()).hexdigest()[:16]
    return hashes
