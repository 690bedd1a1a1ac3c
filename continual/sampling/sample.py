"""Sample sets in the store: sampled once by any engine, resumed by shard, grown on demand, packed into rows."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.data.remote import in_cluster, in_cluster_until
from continual.sampling.fill import fill_rows, pack_rows
from continual.sampling.pace import Pace
from continual.sampling.sets import covers
from continual.sampling.settings import SampleSettings
from continual.sampling.wanted import Wanted
from continual.sampling.write import write_samples
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.code import OURS, definition_code, own_file, with_content


class Made(NamedTuple):
    """How far a set of samples is: the samples done and to be made, their tokens, whether the engine pauses."""

    done: int
    wanted: int
    tokens: int
    paused: bool = False


Progress = Callable[[Made], None]
"""Called after every shard."""


def sampler_identity(dtype: str, config: Generate) -> dict[str, Any]:
    """Return what decides samples in addition to their settings: engine, version, arguments with the files they name.

    Raises ConfigurationError for an argument that names a folder too large to hash.
    """
    engine = ENGINES.load(config.engine)()
    identity = {"dtype": dtype, "engine": config.engine, "versions": versions(engine.packages)}
    if config.engine_arguments:
        arguments = with_content("generate.engine_arguments", config.engine_arguments, None, own_file(type(engine)))
        identity["engine_arguments"] = arguments
    if type(engine).__module__.partition(".")[0] not in OURS:
        identity["code"] = definition_code(type(engine))
    return identity | ({"block": block} if (block := engine.block(config)) > 1 else {})


def sample_inputs(model: ModelRef, dtype: str, settings: SampleSettings, config: Generate) -> dict[str, Any]:
    """Return what decides a sample set. How many samples there are does not: a set grows."""
    return {"model": model.hash, "settings": settings.identity(), **sampler_identity(dtype, config)}


def sample_set(
    store: Store,
    model: ModelRef,
    dtype: str,
    settings: SampleSettings,
    config: Generate,
    count: int,
    progress: Progress | None = None,
) -> Artefact:
    """Return a set with `count` samples or more: columns `number`, `start` and `tokens` (ids), one row per sample.

    Those that the store has are not made again; read the first ones with `continual.sampling.sets.first_samples`.
    Raises ContinualError when more requests fail than `generate.max_failed` allows.
    """
    inputs = sample_inputs(model, dtype, settings, config)
    samples = store.artefact("samples", inputs)
    with store.grow(samples, inputs, lambda: covers(samples, count)) as writer:
        if writer is not None:
            totals: dict[str, int] = {}
            for totals in in_cluster(write_samples, writer, model.path, dtype, settings, config, count):
                if progress:
                    done = totals["samples"] + totals["failed"]
                    progress(Made(done, max(count, done), totals["tokens"]))
            writer.finish(
                engine=config.engine, model=model.hash, distinct=totals["distinct"], settings=inputs["settings"]
            )
    return samples


def sampled_artefacts(
    store: Store, model: ModelRef, dtype: str, settings: SampleSettings, config: Generate, wanted: Wanted
) -> tuple[Artefact, Artefact]:
    """Return the places of the rows that `sample_rows` makes, and of their samples."""
    samples = store.artefact("samples", sample_inputs(model, dtype, settings, config))
    return store.artefact("rows", wanted.inputs(samples)), samples


def sample_rows(
    store: Store,
    model: ModelRef,
    dtype: str,
    settings: SampleSettings,
    config: Generate,
    wanted: Wanted,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    pace: Pace | None = None,
) -> tuple[Artefact, Artefact]:
    """Return rows packed from the first samples of a set, and the set (see `sample_set`).

    Each shard of rows is published when it is final, long before the last one is. Raises Interrupted if another thread
    sets `stop`. With `pace` the engine pauses where it is too far ahead of the training.

    The manifest of the rows says how many samples they hold (`count`) and how many rows are `held_out`. Rows that the
    store has are found without their samples.
    """
    made_of = sample_inputs(model, dtype, settings, config)
    rows, samples = sampled_artefacts(store, model, dtype, settings, config, wanted)
    inputs = wanted.inputs(samples)
    with store.write(rows, inputs) as writer:
        if writer is not None:
            [facts] = in_cluster(pack_rows, writer, wanted, samples) if samples.complete else [None]
            if facts is None:
                with store.grow(samples, made_of, lambda: False) as growing:
                    assert growing is not None
                    sampler = (growing, model.path, dtype, settings, config)
                    filled = in_cluster_until(stop, fill_rows, writer, wanted, *sampler, pace)
                    facts = _followed(filled, progress)
                    growing.finish(
                        engine=config.engine, model=model.hash, distinct=facts["distinct"], settings=made_of["settings"]
                    )
            counts = {key: facts[key] for key in ("count", "held_out")}
            writer.finish(samples=samples.hash, sampled_from=model.hash, **counts)
    return rows, samples


def _followed(made: Iterator[dict[str, int]], progress: Progress | None) -> dict[str, int]:
    """Report what is made as it comes; return what came last."""
    facts: dict[str, int] = {}
    for facts in made:
        if progress and "wanted" in facts:
            done = facts["samples"] + facts["failed"]
            progress(Made(done, max(facts["wanted"], done), facts["tokens"], "paused" in facts))
    return facts
