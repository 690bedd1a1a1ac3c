"""How far the model is from a teacher on rows that are never trained on, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from continual.contract.stream import Stream
from continual.data.documents import mean_per_token, of_source
from continual.data.rows import RowReader
from continual.training.batch import DOCUMENTS, to_tensors
from continual.training.order import held_out_rows
from continual.training.precision import all_bits
from continual.training.step import Stepper


@dataclass(frozen=True)
class Drift:
    """KL(teacher || model) in nats per token, and its standard error over documents.

    The error is None for a single document, and where the sum of a document is not finite.
    """

    value: float
    stderr: float | None


@torch.no_grad()
@all_bits()
def measured_drift(stepper: Stepper) -> dict[str, Drift]:
    """Return the drift on each stream's held-out rows of all ranks, in eval mode; called by all ranks."""
    stepper.strategy.eval()
    streams = (stream for stream in stepper.job.streams if stream.loss.measures_drift and stream.held_out)
    measured = {stream.name: _of_stream(stepper, stream) for stream in streams}
    stepper.strategy.train()
    return measured


def drift_record(measured: Mapping[str, Drift]) -> dict[str, dict[str, float]]:
    """Return what the record of a step says of the drift: `drift` by stream, and `drift_stderr` where it is known."""
    errors = {name: drift.stderr for name, drift in measured.items() if drift.stderr is not None}
    values = {"drift": {name: drift.value for name, drift in measured.items()}}
    return values | ({"drift_stderr": errors} if errors else {})


def _of_stream(stepper: Stepper, stream: Stream) -> Drift:
    reader, rank, world_size = RowReader(stream.rows), stepper.rank, stepper.world_size
    # The number of all rows is not known, and not needed, while they are still made.
    held_out = held_out_rows(stream, len(reader) if stream.shuffle else stream.held_out)
    # Pieces of a document may lie in rows of several ranks, which count its tokens alike.
    documents, tokens = _documents(stream, reader.take(held_out, ("weights", DOCUMENTS)))
    own = held_out[rank::world_size]
    # A rank that has no rows reads one row of padding.
    numbers = own if len(own) else np.array([-1])
    rows: dict[str, np.ndarray] = reader.take(numbers)
    if stream.columns is not None:
        rows |= RowReader(stream.columns).take(numbers, stream.loss.columns)
    rows[DOCUMENTS] = documents[rank::world_size] if len(own) else np.zeros_like(rows[DOCUMENTS], np.int64)
    device, units = stepper.device, max(1, len(tokens))  # rows may have no token with a loss
    total, nats = (torch.zeros(size, dtype=torch.float64, device=device) for size in (2, units))
    # Every rank makes the same number of forward passes: ZeRO-3 gathers weights in each.
    for index in range(-(-len(held_out) // world_size)):
        row = min(index, len(numbers) - 1)
        tensors = to_tensors(stream, {name: values[row][None] for name, values in rows.items()})
        tensors[DOCUMENTS] = torch.from_numpy(rows[DOCUMENTS][row][None])
        sums = stepper.loss_sum(stream, tensors, slice(None), units).to(device)
        if index < len(own):
            count = (tensors["weights"][:, 1:] > 0).sum()
            total += torch.stack([sums[0], count.to(sums)])
            nats += sums[1:]
    # Apart, because the order in which ranks are added may hang on how many numbers there are.
    total, nats = stepper.summed(total), stepper.summed(nats)
    return Drift(float(total[0] / total[1].clamp(min=1)), _error(nats.cpu().numpy()[: len(tokens)], tokens))


def _documents(stream: Stream, rows: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each token's document [rows, T], counted from 0, and how many tokens [D] each has.

    Tokens that are predicted with weight > 0 count alone; of the others the number means nothing.
    """
    numbers, scored = np.zeros(rows[DOCUMENTS].shape, np.int64), rows["weights"] > 0
    scored[:, 0] = False
    _, numbers[scored], tokens = np.unique(
        of_source(stream.rows, rows[DOCUMENTS][scored]), return_inverse=True, return_counts=True
    )
    return numbers, tokens


def _error(nats: np.ndarray, tokens: np.ndarray) -> float | None:
    return mean_per_token(nats, tokens)[1] if len(tokens) and np.isfinite(nats).all() else None
