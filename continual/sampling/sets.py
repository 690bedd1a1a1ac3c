"""A growing set of samples in the store: shards of consecutive numbers, and the first so many of it.

Every shard's side file says its `first` number, its `samples` and its `failed` requests, which have a number too.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from continual.store import Artefact

Facts = dict[str, Any]


def numbers_of(facts: Facts) -> range:
    """Return the numbers that a shard covers."""
    return range(facts["first"], facts["first"] + facts["samples"] + facts["failed"])


def covers(samples: Artefact, count: int) -> bool:
    """Return whether a set was finished with `count` samples or more."""
    if not samples.complete:
        return False
    counts = samples.manifest()["counts"]
    return bool(counts["samples"] + counts["failed"] >= count)


def missing_shards(known: dict[int, Facts], count: int, size: int) -> dict[int, range]:
    """Return the numbers below `count` that no shard holds, by number of the shard that is to hold them.

    A gap between two shards is divided among the shards that are missing there; what comes behind the last one goes
    into shards of `size`.
    """
    missing: dict[int, range] = {}
    shard = end = 0
    for number, facts in sorted(known.items()):
        own, gap = numbers_of(facts), number - shard
        if gap:
            each = -(-(own.start - end) // gap)
            for place in range(gap):
                missing[shard + place] = range(end + place * each, min(own.start, end + (place + 1) * each))
        shard, end = number + 1, own.stop
    for place, first in enumerate(range(end, count, size)):
        missing[shard + place] = range(first, min(count, first + size))
    return missing


def first_samples(samples: Artefact, count: int) -> Iterator[pa.Table]:
    """Yield the samples with numbers below `count`, shard by shard."""
    for shard, facts in enumerate(samples.shards()):
        numbers = numbers_of(facts)
        if numbers.start >= count:
            return
        table = samples.table(shard)
        yield table if numbers.stop <= count else table.filter(pc.less(table["number"], count))


def tokens_by_maker(samples: Artefact, count: int) -> dict[str, int]:
    """Return the sampled tokens of the samples below `count` by who made them."""
    found: dict[str, int] = {}
    for shard, facts in enumerate(samples.shards()):
        numbers = numbers_of(facts)
        if numbers.start >= count:
            break
        tokens = facts["tokens"]
        if numbers.stop > count:
            table = samples.table(shard)
            used = table.filter(pc.less(table["number"], count))
            tokens = int(pc.sum(pc.list_value_length(used["tokens"])).as_py() or 0)
        found[facts["maker"]] = found.get(facts["maker"], 0) + tokens
    return found


def lists(table: pa.Table, name: str) -> list[np.ndarray]:
    """Return a column of lists as arrays."""
    column = table[name].combine_chunks()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(offsets)]
