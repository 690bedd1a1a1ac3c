"""Sample sets in the store: sampled once by any engine, resumed by shard, packed into rows."""

from collections.abc import Callable
from typing import Any

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.data.remote import in_cluster
from continual.sampling.settings import SampleSettings
from continual.sampling.write import write_rows, write_samples
from continual.store import Artefact, Store
from continual.store.artefact import versions


def sampler_identity(dtype: str, config: Generate) -> dict[str, Any]:
    """Return what decides samples in addition to their settings; engine and version are part of it."""
    arguments = {"engine_arguments": config.engine_arguments} if config.engine_arguments else {}
    return {
        **arguments,
        "dtype": dtype,
        "engine": config.engine,
        "versions": versions(ENGINES.load(config.engine)().packages),
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
    """Return a sample set, cached in the store: columns `number`, `start` and `tokens` (ids), one row per sample.

    `progress(samples done, samples in all, tokens done)` is called after every shard. Raises ContinualError when more
    requests fail than `generate.max_failed` allows.
    """
    inputs = sample_inputs(model, dtype, settings, config)
    samples = store.artefact("samples", inputs)
    with store.write(samples, inputs) as writer:
        if writer is not None:
            totals: dict[str, int] = {}
            for totals in in_cluster(write_samples, writer, model.path, dtype, settings, config):
                if progress:
                    progress(totals["samples"] + totals["failed"], settings.count, totals["tokens"])
            writer.finish(
                engine=config.engine, model=model.hash, distinct=totals["distinct"], settings=inputs["settings"]
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
    """Return rows packed from a sample set, and the sample set (see `sample_set`)."""
    samples = sample_set(store, model, dtype, settings, config, progress)
    inputs = {"samples": samples.hash, "row_tokens": row_tokens}
    rows = store.artefact("rows", inputs)
    with store.write(rows, inputs) as writer:
        if writer is not None:
            for _ in in_cluster(write_rows, writer, samples, config.shard_samples, row_tokens):
                pass
            writer.finish(samples=samples.hash, sampled_from=model.hash)
    return rows, samples
