"""Sample and publish shards; these functions run in the cluster, and their results are counts."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from continual.config.schema import Generate
from continual.contract.registry import ENGINES
from continual.data.packing import Arrays, concatenate, fill_rows
from continual.data.rows import row_facts, rows_table
from continual.errors import ContinualError
from continual.sampling.layout import Bins, Packing
from continual.sampling.sets import first_samples, lists, missing_shards
from continual.sampling.settings import SampleSettings
from continual.store import Artefact
from continual.store.artefact import Writer


def write_samples(
    writer: Writer, model: str, dtype: str, settings: SampleSettings, config: Generate, count: int
) -> Iterator[dict[str, int]]:
    """Sample and publish what is missing of the first `count` samples; yield what is stored in all after each shard.

    Yields:
        `samples`, `failed` and `tokens` (sampled ones); at the end also `distinct`: samples that differ in prompt or
        tokens, by 64-bit hashes.

    Raises:
        ContinualError: More requests failed than `generate.max_failed` allows, or the engine ended early.
    """
    block = ENGINES.load(config.engine)().block(config)
    known = writer.known()
    hashes = [_hashes(writer.artefact.table(shard)) for shard in known]
    missing = missing_shards(known, _rounded(count, block), _rounded(config.shard_samples, block))
    for shard, table, failed in _sampled_shards(missing, model, dtype, settings, config):
        tokens = len(pc.list_flatten(table["tokens"]))
        first = missing[shard].start
        writer.put(shard, table, first=first, samples=table.num_rows, failed=failed, tokens=tokens)
        hashes.append(_hashes(table))
        limit_failures(writer.counts["failed"], count, config)
        yield dict(writer.counts)
    yield {**writer.counts, "distinct": len(np.unique(np.concatenate(hashes)))}


def _rounded(count: int, block: int) -> int:
    return -(-count // block) * block


def limit_failures(failed: int, count: int, config: Generate) -> None:
    """Raise ContinualError if more of `count` requests failed than `generate.max_failed` allows."""
    if failed > config.max_failed * count:
        raise ContinualError(
            f"{failed} of {count} samples failed, more than `generate.max_failed` ({config.max_failed}) "
            f"allows; the log file has the engine's errors"
        )


def sampled_packing(samples: Artefact, count: int, row_tokens: int, held_out: int) -> Packing:
    """Return the packing of the first `count` samples of a set."""
    numbers, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for table in first_samples(samples, count):
        numbers.append(table["number"].to_numpy())
        lengths.append(sum(pc.list_value_length(table[name]).to_numpy() for name in ("start", "tokens")))
    return Packing(np.concatenate(numbers), np.concatenate(lengths), row_tokens, held_out)


def write_rows(writer: Writer, samples: Artefact, count: int, row_tokens: int, held_out: int) -> Iterator[int]:
    """Pack the first `count` samples of a set, window by window; yield the number of rows held out.

    The first shard begins with these.
    """
    layout = sampled_packing(samples, count, row_tokens, held_out).layout(count)
    table = pa.concat_tables(list(first_samples(samples, count)))
    for shard in writer.missing(len(layout.windows)):
        parts = [layout.windows[shard]] if shard else [layout.held_out, layout.windows[0]]
        rows = concatenate([pack_samples(table, bins, row_tokens) for bins in parts])
        writer.put(shard, rows_table(rows), **row_facts(rows))
    yield len(layout.held_out)


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
    missing: dict[int, range], model: str, dtype: str, settings: SampleSettings, config: Generate
) -> Iterator[tuple[int, pa.Table, int]]:
    """Yield (shard, samples, failed requests) for every missing shard, as soon as its last sample is there."""
    if not missing:
        return
    waiting: dict[int, dict[int, np.ndarray | None]] = {shard: {} for shard in missing}
    shard_of = {number: shard for shard, numbers in missing.items() for number in numbers}
    for number, tokens in ENGINES.load(config.engine)().generate(model, dtype, settings, list(shard_of), config):
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
