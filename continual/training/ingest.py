"""Feed Ray Train workers from Ray Data: each rank reads its own ordered data set of steps, mapped to stored rows.

Ray Train's default split gives an order that depends on timing. Here a data set's row is one optimizer step of one
rank, so a run that starts at step 10 reads the same rows as one that started at step 0, with any number of workers.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from continual.contract.stream import Stream
from continual.data.context import set_context
from continual.data.packing import Arrays
from continual.data.rows import RowReader
from continual.store import Artefact
from continual.training.order import first_ranks, rank_share, shuffled, step_positions, trained_rows
from continual.training.resources import READ_CPUS

STEPS_PER_BLOCK = 8
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
        firsts = first_ranks(self.streams, self.world_size)
        for stream in self.streams:
            numbers = rank_share(self.row_numbers(stream, step), self.rank, self.world_size, firsts[stream.name])
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
        positions = step_positions(stream.rows_per_step, step - stream.since)
        reader = _reader(stream.rows)
        if stream.shuffle:
            rows = trained_rows(stream, len(reader)) if stream.held_out else None
            order = shuffled(self.seed, stream.name, positions, len(reader) if rows is None else len(rows))
            return order if rows is None else rows[order]
        return reader.resolve(positions, skip=stream.held_out)


def ordered_batches(
    streams: Sequence[Stream], seed: int, steps: range, rank: int, world_size: int
) -> Generator[Arrays]:
    """Yield a rank's arrays (see `ReadSteps.read`) of one step after another, with its number as `step` [1].

    Ray Data reads a few steps ahead, in the process that iterates and tasks of its own.
    """
    import ray.data

    set_context(in_order=True)
    items = [{"step": step} for step in steps]
    numbered = ray.data.from_items(items, override_num_blocks=-(-len(items) // STEPS_PER_BLOCK))
    read = ReadSteps(streams, seed, rank, world_size)
    # A fraction of a CPU: two workers on two cores leave no whole one, and reading would never start.
    pool = ray.data.TaskPoolStrategy(size=READERS)
    mapped = numbered.map_batches(read, batch_size=STEPS_PER_BLOCK, num_cpus=READ_CPUS, compute=pool)
    yield from mapped.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=2)


@contextmanager
def begun(batches: Generator[Arrays]) -> Iterator[Iterator[Arrays]]:
    """Yield the batches while a thread waits for the first: readers take seconds to start, as loading a model does.

    What the first raises is raised where it is asked for. At the end the readers stop, except while they still wait for
    the first: then the caller has failed, and its process ends.
    """
    first: Future[Arrays] = Future()

    def wait() -> None:
        try:
            first.set_result(next(batches))
        except BaseException as error:
            first.set_exception(error)

    def each() -> Iterator[Arrays]:
        yield first.result()
        yield from batches

    threading.Thread(target=wait, name="first batch", daemon=True).start()
    try:
        yield each()
    finally:
        if first.done():
            batches.close()
