"""One step's arrays, as the data set delivers them, as tensors by stream and column."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from continual.contract.stream import Stream

INPUTS = ("ids", "positions", "weights")
"""Columns of the rows that every loss reads."""

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
