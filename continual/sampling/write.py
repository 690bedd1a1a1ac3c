"""Sample and publish shards; these functions run in the cluster, and their results are counts."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from continual.config.schema import Generate
from continual.contract.registry import ENGINES
from continual.data.packing import Arrays, pack_rows
from continual.data.rows import row_facts, rows_table
from continual.errors import ContinualError
from continual.sampling.settings import SampleSettings
from continual.store import Artefact
from continual.store.artefact import Writer


def write_samples(
    writer: Writer, model: str, dtype: str, settings: SampleSettings, config: Generate
) -> Iterator[dict[str, int]]:
    """Sample and publish the missing shards; yield what is stored in all after each, and at the end.

    Yields:
        `samples`, `failed` and `tokens` (sampled ones); at the end also `distinct`: samples that differ in prompt or
        tokens, by 64-bit hashes.

    Raises:
        ContinualError: More requests failed than `generate.max_failed` allows, or the engine ended early.
    """
    shards = -(-settings.count // config.shard_samples)
    missing = writer.missing(shards)
    hashes = [_hashes(writer.artefact.table(shard)) for shard in range(shards) if shard not in missing]
    for shard, table, failed in _sampled_shards(missing, model, dtype, settings, config):
        tokens = len(pc.list_flatten(table["tokens"]))
        writer.put(shard, table, samples=table.num_rows, failed=failed, tokens=tokens)
        hashes.append(_hashes(table))
        limit_failures(writer.counts["failed"], settings, config)
        yield dict(writer.counts)
    yield {**writer.counts, "distinct": len(np.unique(np.concatenate(hashes)))}


def limit_failures(failed: int, settings: SampleSettings, config: Generate) -> None:
    """Raise ContinualError if more requests failed than `generate.max_failed` allows."""
    if failed > config.max_failed * settings.count:
        raise ContinualError(
            f"{failed} of {settings.count} samples failed, more than `generate.max_failed` ({config.max_failed}) "
            f"allows; the log file has the engine's errors"
        )


def write_rows(writer: Writer, samples: Artefact, shard_samples: int, row_tokens: int) -> Iterator[int]:
    """Pack every shard of a sample set into a shard of rows; yield the number of each that was missing."""
    for shard in writer.missing(samples.manifest()["counts"]["shards"]):
        rows = pack_samples(samples.table(shard), row_tokens, first=shard * shard_samples)
        writer.put(shard, rows_table(rows), **row_facts(rows))
        yield shard


def pack_samples(samples: pa.Table, row_tokens: int, first: int) -> Arrays:
    """Return the rows of one shard, its samples numbered as documents from `first` on.

    The prompt has no loss, everything sampled has (paper 1, the plain LM loss after BOS).
    """
    pairs = list(zip(_lists(samples, "start"), _lists(samples, "tokens"), strict=True))
    ids = [np.concatenate(pair) for pair in pairs]
    weights = [np.repeat(np.array([0, 1], np.float32), [len(start), len(tokens)]) for start, tokens in pairs]
    return pack_rows(ids, weights, first, row_tokens)


def _sampled_shards(
    missing: list[int], model: str, dtype: str, settings: SampleSettings, config: Generate
) -> Iterator[tuple[int, pa.Table, int]]:
    """Yield (shard, samples, failed requests) for every missing shard, as soon as its last sample is there."""
    if not missing:
        return
    size = config.shard_samples
    expected = {shard: range(shard * size, min(settings.count, (shard + 1) * size)) for shard in missing}
    waiting: dict[int, dict[int, np.ndarray | None]] = {shard: {} for shard in missing}
    numbers = [number for shard in missing for number in expected[shard]]
    for number, tokens in ENGINES.load(config.engine)().generate(model, dtype, settings, numbers, config):
        shard = number // size
        waiting[shard][number] = tokens
        if len(waiting[shard]) == len(expected[shard]):
            answers = waiting.pop(shard)
            kept = [number for number in sorted(answers) if answers[number] is not None]
            columns = {
                "number": pa.array(kept, pa.int64()),
                "start": pa.array([settings.prompt(number) for number in kept], pa.list_(pa.int32())),
                "tokens": pa.array([answers[number] for number in kept], pa.list_(pa.int32())),
            }
            yield shard, pa.table(columns), len(answers) - len(kept)
    if waiting:
        left = sum(len(expected[shard]) - len(answers) for shard, answers in waiting.items())
        raise ContinualError(f"the {config.engine} engine ended with {left} samples missing; see the log file")


def _hashes(samples: pa.Table) -> np.ndarray:
    """Return a 64-bit hash of every sample: its prompt and its tokens."""
    whole = (np.concatenate(pair) for pair in zip(_lists(samples, "start"), _lists(samples, "tokens"), strict=True))
    digests = [hashlib.blake2b(ids.tobytes(), digest_size=8).digest() for ids in whole]
    return np.frombuffer(b"".join(digests), np.uint64)


def _lists(table: pa.Table, name: str) -> list[np.ndarray]:
    """Return a column of lists as arrays."""
    column = table[name].combine_chunks()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(offsets)]
