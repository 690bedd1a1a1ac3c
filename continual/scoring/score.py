"""Columns in the store: scored shard by shard in the cluster, aligned with the rows' shards, resumed by shard."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.context import set_context
from continual.data.remote import in_cluster_with
from continual.data.rows import ROW_COLUMNS, column, fixed_column
from continual.errors import ContinualError
from continual.models import load_model
from continual.store import Artefact, Store
from continual.store.artefact import Writer, versions

LOOK_SECONDS = 0.2


def score_inputs(model: ModelRef, rows: Artefact, kind: str, dtype: str, top_k: int) -> dict[str, Any]:
    """Return what decides columns. Raises ValueError for a `kind` that there is not."""
    if kind not in ("nll", "topk"):
        raise ValueError(f"there is no column `{kind}`; use `nll` or `topk`")
    return {
        "what": kind,
        "model": model.hash,
        "rows": rows.hash,
        "dtype": dtype,
        "versions": versions(("transformers", "torch")),
        **({"k": top_k} if kind == "topk" else {}),
    }


def score_rows(
    store: Store,
    model: ModelRef,
    rows: Artefact,
    kind: str,
    dtype: str,
    config: Generate,
    top_k: int = 64,
    progress: Callable[[int, int], None] = lambda done, shards: None,
) -> Artefact:
    """Return the columns of a frozen model for a complete rows artefact; cached in the store.

    `kind`: `nll` (column `nll` [T]) or `topk` (columns `top_ids` and `top_logprobs` [T x k], k = `top_k`); see
    `continual.scoring.columns`. Shard i has exactly the rows of the rows' shard i, in their order. Each replica
    (`config.replicas`, with its CPUs and GPUs) loads the model once, in `dtype`. `progress(shards done, shards in all)`
    is called after each shard. Raises ValueError for another `kind`.
    """
    inputs = score_inputs(model, rows, kind, dtype, top_k)
    artefact = store.artefact("columns", inputs)
    shards = rows.manifest()["counts"]["shards"]
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            missing = writer.missing(shards)
            arguments = (writer, model.path, rows, kind, dtype, top_k, _device(config))
            for done, _ in enumerate(_run(missing, arguments, config), shards - len(missing) + 1):
                progress(done, shards)
            writer.finish(model=model.hash, rows_artefact=rows.hash, what=kind)
    return artefact


def score_growing(
    store: Store,
    model: ModelRef,
    rows: Artefact,
    kind: str,
    dtype: str,
    config: Generate,
    top_k: int = 64,
    stop: threading.Event | None = None,
) -> Artefact:
    """Return the same columns as `score_rows`, each shard made as soon as its rows are there; return when all are.

    One process with the CPUs and GPUs of a replica holds the model. Raises Interrupted if another thread sets `stop`,
    and ContinualError if the rows' writer gives up.
    """
    inputs = score_inputs(model, rows, kind, dtype, top_k)
    artefact = store.artefact("columns", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            arguments = (writer, model.path, rows, kind, dtype, top_k, _device(config))
            cpus, gpus = config.cpus_per_replica, config.gpus_per_replica
            for _ in in_cluster_with(cpus, gpus, stop, follow_rows, *arguments):
                pass
            writer.finish(model=model.hash, rows_artefact=rows.hash, what=kind)
    return artefact


def follow_rows(
    writer: Writer, model: str, rows: Artefact, kind: str, dtype: str, top_k: int, device: str
) -> Iterator[int]:
    """Score and publish the shards that are missing as their rows appear, until the rows are complete; runs in the
    cluster. Yield the number of each shard.

    Raises ContinualError if the rows' writer gives up.
    """
    scorer: _ScoreShards | None = None
    seen = 0
    while True:
        complete = rows.complete  # asked before the shards, so that none is overlooked
        there = len(rows.shards())
        if there > seen:
            for shard in writer.missing(there):
                scorer = scorer or _ScoreShards(writer, model, rows, kind, dtype, top_k, device)
                scorer.score(shard)
                yield shard
            seen = there
        if complete:
            return
        if reason := rows.failure():
            raise ContinualError(f"{rows.path}: its writer gave up: {reason}")
        time.sleep(LOOK_SECONDS)


def _device(config: Generate) -> str:
    return "cuda" if config.gpus_per_replica else "cpu"


def _run(missing: list[int], arguments: tuple[Any, ...], config: Generate) -> Iterator[Any]:
    """Score and publish the missing shards in actors `_ScoreShards(*arguments)`; yields an item per shard."""
    if not missing:
        return
    import ray.data

    set_context()
    items = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
    scored = items.map_batches(
        _ScoreShards,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(config.replicas, len(missing))),
        num_cpus=config.cpus_per_replica,
        num_gpus=config.gpus_per_replica or None,
    )
    yield from scored.iter_rows()


class _ScoreShards:
    """An actor that holds the model and publishes the shards whose numbers it gets, so that only numbers travel."""

    def __init__(self, writer: Writer, model: str, rows: Artefact, kind: str, dtype: str, top_k: int, device: str):
        from continual.scoring import columns

        self.writer, self.rows = writer, rows
        self.model = load_model(model, dtype, device)
        self.columns = columns.nll_columns if kind == "nll" else partial(columns.topk_columns, k=top_k)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for shard in batch["shard"]:
            self.score(int(shard))
        return {"shard": batch["shard"]}

    def score(self, shard: int) -> None:
        table = self.rows.table(shard)
        columns = self.columns(self.model, {name: column(table, name) for name in ROW_COLUMNS})
        self.writer.put(shard, pa.table({name: fixed_column(array) for name, array in columns.items()}))
