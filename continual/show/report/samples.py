"""The first samples of a set as text, with their log-probability; cached in the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from continual.store import Artefact, Store

SHOWN = 50
"""Samples of a set that the report shows."""
KIND = "shown"
WAIT_SECONDS = 600.0
"""Longest wait for a place in the cluster and the work together, so that a report never takes much longer."""

Make = Callable[[Store, Artefact, str, str], None]
"""A function that fills the store: `make_shown`, in this process or in the cluster."""


def shown_of(samples: Artefact) -> Artefact:
    """Return the artefact (kind "shown") of a sample set."""
    return Store(samples.root).artefact(KIND, _inputs(samples))


def _inputs(samples: Artefact) -> dict[str, Any]:
    return {"samples": samples.hash, "shown": SHOWN}


def make_shown(store: Store, samples: Artefact, model: str, dtype: str) -> None:
    """Decode the first samples, score them with the model that made them, and store both as one shard.

    Columns: number, start and text (strings), tokens (how many were sampled), log_probability (in nats, summed over
    those tokens; the model's own, at temperature 1, whatever the settings of sampling). The model goes on a GPU if the
    process has one.
    """
    artefact, inputs = shown_of(samples), _inputs(samples)
    with store.write(artefact, inputs) as writer:
        if writer is None:
            return
        import torch
        from transformers.utils import logging

        from continual.models import load_model, load_tokenizer
        from continual.models.forward import token_losses

        logging.disable_progress_bar()  # the command would print nothing else about this work
        table = _first(samples)
        starts, bodies = table["start"].to_pylist(), table["tokens"].to_pylist()
        loaded = load_model(model, dtype, "cuda" if torch.cuda.is_available() else "cpu")
        losses = token_losses(loaded, _rows([start + body for start, body in zip(starts, bodies, strict=True)]))
        sums = [
            -float(line[len(start) : len(start) + len(body)].sum(dtype=np.float64))
            for line, start, body in zip(losses, starts, bodies, strict=True)
        ]
        tokenizer = load_tokenizer(model)
        columns = {
            "number": table["number"],
            "start": pa.array([tokenizer.decode(start) for start in starts]),
            "text": pa.array([tokenizer.decode(body) for body in bodies]),
            "tokens": pa.array([len(body) for body in bodies], pa.int64()),
            "log_probability": pa.array(sums, pa.float64()),
        }
        writer.put(0, pa.table(columns))
        writer.finish(samples=samples.hash)


def _first(samples: Artefact) -> pa.Table:
    """Return the first SHOWN samples."""
    tables, count = [], 0
    for table in samples.tables():
        tables.append(table)
        count += table.num_rows
        if count >= SHOWN:
            break
    return pa.concat_tables(tables).slice(0, SHOWN)


def _rows(documents: list[list[int]]) -> dict[str, np.ndarray]:
    """Return a row per document, padded to the longest: ids, positions and documents (-1: padding), each [rows, T]."""
    width = max(map(len, documents))
    shape = (len(documents), width)
    ids, positions, numbers = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = document
        positions[row, : len(document)] = np.arange(len(document))
        numbers[row, : len(document)] = row
    return {"ids": ids, "positions": positions, "documents": numbers}


def make_in_cluster(gpus: float) -> Make:
    """Return `make_shown` as a task of the connected Ray, so that the driver holds no model."""

    def make(store: Store, samples: Artefact, model: str, dtype: str) -> None:
        import ray

        # Reserve no CPU: the task is short, and the run's other work has ended.
        task = ray.remote(make_shown).options(num_cpus=0, num_gpus=gpus or None)
        ray.get(task.remote(store, samples, model, dtype), timeout=WAIT_SECONDS)

    return make


def read_shown(samples: Artefact) -> list[dict[str, Any]]:
    """Return the stored lines of a sample set, [] before they are made."""
    artefact = shown_of(samples)
    return artefact.table(0).to_pylist() if artefact.complete else []


def model_there(model: str | None) -> bool:
    """Return whether the model that made the samples is still where the run left it."""
    return model is not None and Path(model).is_dir()
