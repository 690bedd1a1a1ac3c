"""Feed Ray Train workers from Ray Data: each rank gets its own ordered data set of steps, mapped to stored rows.

Ray Train's default split gives an order that depends on timing. Here a data set's row is one optimizer step of one
rank, so a run that starts at step 10 reads the same rows as one that started at step 0, with any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.train import DataConfig

from continual.contract.stream import Stream
from continual.data.rows import RowReader
from continual.store import Artefact
from continual.training.checkpoints import newest_valid
from continual.training.order import rank_share, shuffled, step_positions, trained_rows

if TYPE_CHECKING:
    from ray.data import DataIterator

STEPS_PER_BLOCK = 8
READ_CPUS = 0.1
READERS = 2
"""Blocks of a rank that are read at the same time. Without a bound Ray Data starts a process for every tenth of a free
CPU, and starting them takes longer than reading."""


@lru_cache(maxsize=32)
def _reader(artefact: Artefact) -> RowReader:
    return RowReader(artefact)


@dataclass
class ReadSteps:
    """A map from step numbers to a rank's rows: the arrays `<stream>/<column>` [steps, rows, width] of all streams."""

    streams: Sequence[Stream]
    seed: int
    rank: int
    world_size: int

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        steps = [self.read(int(step)) for step in batch["step"]]
        out = {key: np.stack([arrays[key] for arrays in steps]) for key in steps[0]}
        return {"step": batch["step"], **out}

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Return the rank's arrays `<stream>/<column>` [rows, width] of a step, and its row numbers `<stream>/row`."""
        out: dict[str, np.ndarray] = {}
        for stream in self.streams:
            numbers = rank_share(self.row_numbers(stream, step), self.rank, self.world_size)
            rows = _reader(stream.rows).take(numbers)
            for weights in stream.token_weights:
                rows["weights"] = rows["weights"] * _reader(weights).take(numbers, ("weights",))["weights"]
            if stream.columns is not None:
                rows |= _reader(stream.columns).take(numbers, stream.loss.columns)
            rows["row"] = numbers
            out |= {f"{stream.name}/{key}": value for key, value in rows.items() if key != "documents"}
        return out

    def row_numbers(self, stream: Stream, step: int) -> np.ndarray:
        """Return all workers' row numbers of a stream in a step."""
        positions = step_positions(stream.rows_per_step, step)
        reader = _reader(stream.rows)
        if stream.shuffle:
            rows = trained_rows(stream, len(reader)) if stream.held_out else None
            order = shuffled(self.seed, stream.name, positions, len(reader) if rows is None else len(rows))
            return order if rows is None else rows[order]
        return reader.resolve(positions, skip=stream.held_out)


class OrderedIngest(DataConfig):
    """Gives every rank its steps from the newest valid checkpoint on, each time that the workers start."""

    def __init__(self, streams: Sequence[Stream], seed: int, steps: int, checkpoints: str):
        super().__init__()
        self.streams, self.seed, self.steps, self.checkpoints = list(streams), seed, steps, checkpoints

    def configure(
        self, datasets: Any, world_size: int, worker_handles: Any, worker_node_ids: Any, **kwargs: Any
    ) -> "list[dict[str, DataIterator]]":
        import ray.data

        first, _ = newest_valid(Path(self.checkpoints))
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        steps = np.arange(min(first, self.steps - 1), self.steps)
        parts = []
        for rank in range(world_size):
            read = ReadSteps(self.streams, self.seed, rank, world_size)
            items = [{"step": int(step)} for step in steps]
            blocks = -(-len(items) // STEPS_PER_BLOCK)
            numbered = ray.data.from_items(items, override_num_blocks=blocks)
            # A fraction of a CPU: two workers on two cores leave no whole one, and reading would never start.
            pool = ray.data.TaskPoolStrategy(size=READERS)
            mapped = numbered.map_batches(read, batch_size=STEPS_PER_BLOCK, num_cpus=READ_CPUS, compute=pool)
            mapped.context.execution_options.preserve_order = True
            parts.append({"steps": mapped.iterator()})
        return parts
