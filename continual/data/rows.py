"""Stored rows: their Arrow form, and the reader that training, scoring and methods share.

The reader waits for the rows of an artefact that still grows: a stage may train while its samples are made.
"""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from continual.data.packing import Arrays, empty_rows
from continual.errors import ContinualError
from continual.store import Artefact
from continual.store.files import temporary_name

ROW_COLUMNS = {"ids": pa.int32(), "positions": pa.int32(), "weights": pa.float32(), "documents": pa.int32()}
ORIGINS = "origins.npy"
"""A document that is longer than a row becomes several, which the numbers in this file hold together."""
WAIT_SECONDS = 1800.0
"""A reader gives up after this long if no process writes the artefact. A writer may take hours for a shard."""


def fixed_column(array: np.ndarray) -> pa.FixedSizeListArray:
    """Return an array [rows, ...] as one fixed-size list per row."""
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def rows_table(rows: Arrays) -> pa.Table:
    return pa.table({name: fixed_column(rows[name]) for name in ROW_COLUMNS})


def column(table: pa.Table, name: str) -> np.ndarray:
    """Return a fixed-size list column as an array [rows, width], without a copy where Arrow allows."""
    chunked = table.column(name)
    width = chunked.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in chunked.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros((0, width))])


def row_facts(rows: Arrays) -> dict[str, int]:
    """Return the counts for a shard's side file."""
    return {
        "tokens": int((rows["documents"] >= 0).sum()),
        "trained_tokens": int((rows["weights"][:, 1:] > 0).sum()),
    }


def write_origins(rows: Artefact, origins: np.ndarray) -> None:
    """Write beside rows which document of the source each of their documents is (a piece of)."""
    path = temporary_name(rows.path / ORIGINS)
    with path.open("wb") as file:
        np.save(file, origins)
    path.replace(rows.path / ORIGINS)


def read_origins(rows: Artefact) -> np.ndarray | None:
    """Return the source's document by document of the rows; None where documents are whole.

    Raises ContinualError if the file is not what was stored.
    """
    if ORIGINS not in rows.manifest()["files"]:
        return None
    origins: np.ndarray = np.load(rows.file(ORIGINS), allow_pickle=False)
    return origins


class RowReader:
    """Random access to the rows of an artefact by row number, complete or growing."""

    def __init__(self, artefact: Artefact, wait_seconds: float = WAIT_SECONDS):
        self.artefact, self.wait_seconds = artefact, wait_seconds
        self._starts: list[int] = [0]
        self._tables: dict[int, pa.Table] = {}
        self._columns: dict[tuple[int, str], np.ndarray] = {}
        self._total: int | None = None

    def __len__(self) -> int:
        """Return the number of rows, once the artefact is complete."""
        self._grow(until=None)
        assert self._total is not None
        return self._total

    def available(self) -> tuple[int, bool]:
        """Return the rows in the contiguous shards so far, and whether the artefact is complete."""
        if self._total is None:
            complete = self.artefact.complete
            while (facts := self.artefact.shard_facts(len(self._starts) - 1)) is not None:
                self._starts.append(self._starts[-1] + facts["rows"])
            if complete:
                self._check_whole()
                self._total = self._starts[-1]
        return self._starts[-1], self._total is not None

    def _check_whole(self) -> None:
        starts = [0]
        for number, facts in enumerate(self.artefact.manifest()["shards"], 1):
            starts.append(starts[-1] + facts["rows"])
            if starts != self._starts[: number + 1]:
                raise self.artefact.damaged(self.artefact.shard(number - 1).name)

    def _grow(self, until: int | None) -> None:
        """Wait until row number `until` exists or the artefact is complete."""
        seen, deadline = -1, time.monotonic() + self.wait_seconds
        while True:
            rows, complete = self.available()
            if complete or (until is not None and rows > until):
                return
            if reason := self.artefact.failure():
                raise ContinualError(f"{self.artefact.path}: its writer gave up: {reason}")
            late = rows == seen and time.monotonic() > deadline
            if late and not self.artefact.being_written and self.available() == (rows, complete):
                problem = f"no new shard for {self.wait_seconds:.0f} s, and nothing is writing it"
                raise ContinualError(f"{self.artefact.path}: {problem}")
            if rows != seen or time.monotonic() > deadline:
                seen, deadline = rows, time.monotonic() + self.wait_seconds
            time.sleep(0.2)

    def resolve(self, positions: np.ndarray, skip: int = 0) -> np.ndarray:
        """Return the row numbers of endless sequential reading: after the last row comes row `skip` again.

        Waits for the rows that are needed, so the result does not depend on how far the writer is.
        """
        if len(positions) == 0:
            return positions
        self._grow(until=skip + int(positions.max()))
        rows, complete = self.available()
        if complete:
            if rows <= skip:
                raise ContinualError(f"{self.artefact.path}: has {rows} rows, but {skip} are held out; sample more")
            return skip + positions % (rows - skip)
        return skip + positions

    def _column(self, shard: int, name: str) -> np.ndarray:
        """Return a shard's column; cached, since opening it costs more than reading a few of its rows."""
        if (shard, name) not in self._columns:
            if shard not in self._tables:
                self._tables[shard] = self.artefact.table(shard)
            self._columns[shard, name] = column(self._tables[shard], name)
        return self._columns[shard, name]

    def take(self, numbers: np.ndarray, columns: tuple[str, ...] = tuple(ROW_COLUMNS)) -> dict[str, Any]:
        """Return columns of the rows `numbers`, each [len(numbers), width]; a negative number is a row of padding."""
        if len(numbers):
            # The first shard has the form of a row of padding, too.
            self._grow(until=max(0, int(numbers.max())))
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        # Shard by shard: the places in `numbers` that a shard fills; those of padding come first, under shard -1.
        order = np.argsort(shards, kind="stable")
        distinct, first = np.unique(shards[order], return_index=True)
        parts = np.split(order, first[1:])  # without numbers: one empty part
        like = int(max(shards.max(initial=0), 0))
        out = {name: self._padding(name, len(numbers), self._column(like, name)) for name in columns}
        for shard, places in zip(distinct.tolist(), parts, strict=False):
            if shard < 0:
                continue
            within = numbers[places] - self._starts[shard]
            for name in columns:
                out[name][places] = self._column(shard, name)[within]
        return out

    @staticmethod
    def _padding(name: str, count: int, like: np.ndarray) -> np.ndarray:
        if name in ROW_COLUMNS:
            return empty_rows(count, like.shape[1])[name]
        return np.zeros((count, like.shape[1]), like.dtype)
