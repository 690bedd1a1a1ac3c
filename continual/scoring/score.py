"""Columns in the store: scored shard by shard in the cluster, aligned with the rows' shards, resumed by shard."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.rows import ROW_COLUMNS, column, fixed_column
from continual.models import load_model
from continual.store import Artefact, Store
from continual.store.artefact import Writer, versions


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
    if kind not in ("nll", "topk"):
        raise ValueError(f"there is no column `{kind}`; use `nll` or `topk`")
    inputs: dict[str, Any] = {
        "what": kind,
        "model": model.hash,
        "rows": rows.hash,
        "dtype": dtype,
        "versions": versions(("transformers", "torch")),
        **({"k": top_k} if kind == "topk" else {}),
    }
    artefact = store.artefact("columns", inputs)
    shards = rows.manifest()["counts"]["shards"]
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            missing = writer.missing(shards)
            arguments = (writer, model.path, rows, kind, dtype, top_k, "cuda" if config.gpus_per_replica else "cpu")
            for done, _ in enumerate(_run(missing, arguments, config), shards - len(missing) + 1):
                progress(done, shards)
            writer.finish(model=model.hash, rows_artefact=rows.hash, what=kind)
    return artefact


def _run(missing: list[int], arguments: tuple[Any, ...], config: Generate) -> Iterator[Any]:
    """Score and publish the missing shards in actors `_ScoreShards(*arguments)`; yields an item per shard."""
    if not missing:
        return
    import ray.data

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
            table = self.rows.table(int(shard))
            columns = self.columns(self.model, {name: column(table, name) for name in ROW_COLUMNS})
            self.writer.put(int(shard), pa.table({name: fixed_column(array) for name, array in columns.items()}))
        return {"shard": batch["shard"]}
