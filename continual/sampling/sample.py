"""Sample sets in the store: sampled once by any engine, resumed by shard, grown on demand, packed into rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.data.remote import in_cluster
from continual.sampling.layout import Packing
from continual.sampling.sets import covers
from continual.sampling.settings import SampleSettings
from continual.sampling.write import sampled_packing, write_rows, write_samples
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.code import OURS, definition_code

Progress = Callable[[int, int, int], None]
"""Called after every shard with the samples done, the samples in all and the tokens done."""


@dataclass(frozen=True)
class Wanted:
    """How many samples: `count`, or as many as fill `rows` rows beside `held_out` ones (see `SampleRequest`)."""

    row_tokens: int
    count: int | None = None
    rows: int | None = None
    held_out: int = 0

    def inputs(self, samples: Artefact) -> dict[str, Any]:
        """Return what decides the packed rows of a set."""
        size = {"rows": self.rows} if self.count is None else {"count": self.count}
        return {"samples": samples.hash, "row_tokens": self.row_tokens, "held_out": self.held_out, **size}


def sampler_identity(dtype: str, config: Generate) -> dict[str, Any]:
    """Return what decides samples in addition to their settings; engine and version are part of it."""
    engine = ENGINES.load(config.engine)()
    identity = {"dtype": dtype, "engine": config.engine, "versions": versions(engine.packages)}
    identity |= {"engine_arguments": config.engine_arguments} if config.engine_arguments else {}
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
                    progress(done, max(count, done), totals["tokens"])
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
    wanted: Wanted,
    progress: Progress | None = None,
) -> tuple[Artefact, Artefact]:
    """Return rows packed from the first samples of a set, and the set (see `sample_set`).

    The manifest of the rows says how many samples they hold (`count`) and how many rows are `held_out`. Rows that the
    store has are found without their samples.
    """
    samples = store.artefact("samples", sample_inputs(model, dtype, settings, config))
    inputs = wanted.inputs(samples)
    rows = store.artefact("rows", inputs)
    with store.write(rows, inputs) as writer:
        if writer is not None:

            def make(count: int) -> None:
                sample_set(store, model, dtype, settings, config, count, progress)

            count = _enough(samples, wanted, make)
            [held_out] = in_cluster(write_rows, writer, samples, count, wanted.row_tokens, wanted.held_out)
            writer.finish(samples=samples.hash, sampled_from=model.hash, count=count, held_out=held_out)
    return rows, samples


def _enough(samples: Artefact, wanted: Wanted, make: Callable[[int], None]) -> int:
    """Sample until there is enough, and return how many samples that takes.

    The first round makes the least that can suffice, the next one what the lengths of the samples say, so that a third
    is rare. What was sampled beyond the number stays in the set.
    """
    if wanted.count is not None:
        make(wanted.count)
        return wanted.count
    rows = wanted.rows or 0
    count, found = sampled_packing(samples, 0, wanted.row_tokens, wanted.held_out).enough(rows, 0)
    target = count
    while found is None:
        make(target)
        available = _available(samples)
        packing: Packing = sampled_packing(samples, available, wanted.row_tokens, wanted.held_out)
        count, found = packing.enough(rows, available)
        target = max(count, packing.estimate(rows, available))
    return count


def _available(samples: Artefact) -> int:
    counts = samples.manifest()["counts"]
    return int(counts["samples"] + counts["failed"])
