"""Sample and publish shards; these functions run in the cluster, and their results are counts."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from continual.config.schema import Generate
from continual.contract.registry import ENGINES
from continual.data.packing import Arrays, fill_rows
from continual.errors import ContinualError
from continual.sampling.engine import Sample
from continual.sampling.layout import Bins
from continual.sampling.sets import lists, missing_shards
from continual.sampling.settings import SampleSettings
from continual.store.artefact import Writer


def write_samples(
    writer: Writer, model: str, dtype: str, settings: SampleSettings, config: Generate, count: int
) -> Iterator[dict[str, int]]:
    """Sample and publish what is missing of the first `count` samples; yield what is stored in all after each shard.

    Yields:
        `samples`, `failed` and `tokens` (sampled ones); at the end also `distinct` (see `Sampler`).

    Raises:
        ContinualError: More requests failed than `generate.max_failed` allows, or the engine ended early.
    """
    with Sampler(writer, model, dtype, settings, config) as sampler:
        yield from sampler.up_to(count)
        yield {**sampler.counts, "distinct": sampler.distinct()}


class Sampler:
    """Adds samples to a set, in one or more rounds. Inside the block the engine stays, from the first round on."""

    def __init__(self, writer: Writer, model: str, dtype: str, settings: SampleSettings, config: Generate):
        self.writer, self.settings, self.config = writer, settings, config
        self._engine = ENGINES.load(config.engine)()
        self._open = partial(self._engine.session, model, dtype, settings, config)
        self._stack = ExitStack()
        self._sample: Callable[[list[int]], Iterator[Sample]] | None = None

    def __enter__(self) -> Self:
        self._hashes = [_hashes(self.writer.artefact.table(shard)) for shard in self.writer.known()]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def counts(self) -> dict[str, int]:
        """What is stored in all: `samples`, `failed` and `tokens` (sampled ones)."""
        return {key: self.writer.counts[key] for key in ("samples", "failed", "tokens")}

    def distinct(self) -> int:
        """Return how many samples differ in prompt or tokens, by 64-bit hashes."""
        return len(np.unique(np.concatenate(self._hashes))) if self._hashes else 0

    def whole_shards(self, begin: int, end: int) -> int:
        """Return `end`, or more samples, so that whole shards lie between `begin` and it."""
        size = _rounded(self.config.shard_samples, self._engine.block(self.config))
        return begin + _rounded(end - begin, size)

    def up_to(self, count: int) -> Iterator[dict[str, int]]:
        """Sample what is missing of the first `count` samples, in whole blocks; yield `counts` after each shard.

        Raises ContinualError as `write_samples` does.
        """
        config, block = self.config, self._engine.block(self.config)
        known = self.writer.known()
        missing = missing_shards(known, _rounded(count, block), _rounded(config.shard_samples, block))
        if not missing:
            return
        if self._sample is None:
            self._sample = self._stack.enter_context(self._open())
        for shard, table, failed in _sampled_shards(missing, self._sample, self.settings, config):
            tokens = len(pc.list_flatten(table["tokens"]))
            first = missing[shard].start
            self.writer.put(shard, table, first=first, samples=table.num_rows, failed=failed, tokens=tokens)
            self._hashes.append(_hashes(table))
            limit_failures(self.writer.counts["failed"], count, config)
            yield self.counts


def _rounded(count: int, block: int) -> int:
    return -(-count // block) * block


def limit_failures(failed: int, count: int, config: Generate) -> None:
    """Raise ContinualError if more of `count` requests failed than `generate.max_failed` allows."""
    if failed > config.max_failed * count:
        raise ContinualError(
            f"{failed} of {count} samples failed, more than `generate.max_failed` ({config.max_failed}) "
            f"allows; the log file has the engine's errors"
        )


def pack_samples(samples: pa.Table, bins: Bins, row_tokens: int) -> Arrays:
    """Return rows of samples, each row's by their places; a document has the number of its sample.

    The prompt has no loss, everything sampled has (paper 1, the plain LM loss after BOS).
    """
    places = sorted(place for items in bins for place in items)
    index = {place: item for item, place in enumerate(places)}
    chosen = samples.take(np.asarray(places, np.int64))
    pairs = list(zip(lists(chosen, "start"), lists(chosen, "tokens"), strict=True))
    ids = [np.concatenate(pair) for pair in pairs]
    weights = [np.repeat(np.array([0, 1], np.float32), [len(start), len(tokens)]) for start, tokens in pairs]
    numbers = chosen["number"].to_pylist()
    return fill_rows([[index[place] for place in items] for items in bins], ids, weights, numbers, row_tokens)


def _sampled_shards(
    missing: dict[int, range],
    sample: Callable[[list[int]], Iterator[Sample]],
    settings: SampleSettings,
    config: Generate,
) -> Iterator[tuple[int, pa.Table, int]]:
    """Yield (shard, samples, failed requests) for every missing shard, as soon as its last sample is there."""
    waiting: dict[int, dict[int, np.ndarray | None]] = {shard: {} for shard in missing}
    shard_of = {number: shard for shard, numbers in missing.items() for number in numbers}
    for number, tokens in sample(list(shard_of)):
        shard = shard_of[number]
        waiting[shard][number] = tokens
        if len(waiting[shard]) == len(missing[shard]):
            answers = waiting.pop(shard)
            kept = [number for number in sorted(answers) if answers[number] is not None]
            columns = {
                "number": pa.array(kept, pa.int64()),
                "start": pa.array([settings.prompt(number) for number in kept], pa.list_(pa.int32())),
                "tokens": pa.array([answers[number] for number in kept], pa.list_(pa.int32())),
            }
            yield shard, pa.table(columns), len(answers) - len(kept)
    if waiting:
        left = sum(len(missing[shard]) - len(answers) for shard, answers in waiting.items())
        raise ContinualError(f"the {config.engine} engine ended with {left} samples missing; see the log file")


def _hashes(samples: pa.Table) -> np.ndarray:
    """Return a 64-bit hash of every sample: its prompt and its tokens."""
    whole = (np.concatenate(pair) for pair in zip(lists(samples, "start"), lists(samples, "tokens"), strict=True))
    digests = [hashlib.blake2b(ids.tobytes(), digest_size=8).digest() for ids in whole]
    return np.frombuffer(b"".join(digests), np.uint64)
