"""The first samples of a set as text, with their log-probability; cached in the store."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from continual.data.packing import concatenate, pack_rows
from continual.store import Artefact, Store

SHOWN = 50
"""Samples of a set that the report shows."""
WAIT_SECONDS = 600.0
"""Longest wait for a place in the cluster and the work together, so that a report never takes much longer."""

Make = Callable[[Artefact, str, str], None]
"""A function that fills the store: `make_shown`, in this process or in the cluster."""


def shown_of(samples: Artefact) -> Artefact:
    """Return the artefact (kind "shown") of a sample set."""
    return Store(samples.root).artefact("shown", _inputs(samples))


def _inputs(samples: Artefact) -> dict[str, Any]:
    return {"samples": samples.hash, "shown": SHOWN}


def make_shown(samples: Artefact, model: str, dtype: str) -> None:
    """Decode the first samples, score them with the model that made them, and store both as one shard.

    Columns: number, start and text (strings), tokens (how many were sampled), log_probability (in nats, summed over
    those tokens; the model's own, at temperature 1, whatever the settings of sampling). The model goes on a GPU if the
    process has one.
    """
    with Store(samples.root).write(shown_of(samples), _inputs(samples)) as writer:
        if writer is None:
            return
        import torch

        from continual.models import load_model, load_tokenizer
        from continual.models.forward import token_losses

        tables = (table for table in samples.tables() if table.num_rows)
        table = pa.concat_tables(islice(tables, SHOWN)).slice(0, SHOWN)
        starts, bodies = table["start"].to_pylist(), table["tokens"].to_pylist()
        documents = [np.array(start + body) for start, body in zip(starts, bodies, strict=True)]
        width = max(map(len, documents))
        # A row per document: some models let documents that share a row see each other.
        rows = concatenate([pack_rows([ids], [np.ones(len(ids))], 0, width) for ids in documents])
        losses = token_losses(load_model(model, dtype, "cuda" if torch.cuda.is_available() else "cpu"), rows)
        sums = [-float(line[len(start) :].sum(dtype=np.float64)) for line, start in zip(losses, starts, strict=True)]
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


def make_in_cluster(gpus: float, evaluator: Any, samples: Artefact, model: str, dtype: str) -> None:
    """Run `make_shown` in the connected Ray, so that the driver holds no model.

    `evaluator`: the `Evaluator` in whose process it runs, since that has imported torch; None: it becomes a task.
    """
    import ray

    if evaluator is not None:
        ray.get(evaluator.call.remote(make_shown, samples, model, dtype), timeout=WAIT_SECONDS)
        return
    # Reserve no CPU: the task is short, and the run's other work has ended.
    task = ray.remote(make_shown).options(num_cpus=0, num_gpus=gpus or None)
    ray.get(task.remote(samples, model, dtype), timeout=WAIT_SECONDS)


def read_shown(samples: Artefact) -> list[dict[str, Any]]:
    """Return the stored lines of a sample set, [] before they are made."""
    artefact = shown_of(samples)
    return artefact.table(0).to_pylist() if artefact.complete else []
