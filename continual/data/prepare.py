"""Read, tokenize and pack a data source with Ray Data; publish the rows shard by shard."""

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from continual.contract.source import Source
from continual.data.context import set_context
from continual.data.formats import CUT
from continual.data.packing import Arrays, concatenate, pack_rows
from continual.data.read import read_all
from continual.data.remote import in_cluster
from continual.data.rows import row_facts, rows_table, write_origins
from continual.data.tally import Pieces, Tally
from continual.data.tokenize import THREADS, Tokenize
from continual.models.files import tokenizer_hash
from continual.store import Artefact, Store
from continual.store.artefact import Writer
from continual.store.code import definition_code, own_file

WINDOW = 1024
"""Pieces packed together; larger wastes less room, smaller answers sooner."""
SHARD_ROWS = 2048


def prepare_rows(
    store: Store, source: Source, model: str, row_tokens: int, progress: Callable[[int], None] | None = None
) -> Artefact:
    """Return packed rows of a source under the tokenizer of the model folder `model`; cached in the store.

    The manifest counts what became of the documents (see `Tally.facts`) and from how many the rows come (`origins`).

    Raises:
        ConfigurationError: The source or a document of it cannot be used, or no document is left.
    """
    source = source.pinned()
    inputs = rows_inputs(source, model, row_tokens)
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            facts: dict[str, Any] = {}
            for facts in in_cluster(write_rows, writer, source, model, row_tokens):
                if progress:
                    progress(facts["read"])
            writer.finish(**facts, source=source.model_dump())
    return artefact


def rows_inputs(source: Source, model: str, row_tokens: int) -> dict[str, Any]:
    """Return what decides the rows of a source under the tokenizer of the model folder `model`."""
    return {
        "source": source.identity(),
        "tokenizer": tokenizer_hash(model),
        "row_tokens": row_tokens,
        "window": WINDOW,
        **({"code": definition_code(type(source))} if own_file(type(source)) else {}),
    }


def write_rows(writer: Writer, source: Source, model: str, row_tokens: int) -> Iterator[dict[str, Any]]:
    """Publish the rows of a source; yield what became of the documents, after every shard and at the end.

    Raises:
        ConfigurationError: As `prepare_rows`.
    """
    tally, origins = Tally(source), array("q")
    pieces = tally.pieces(_tokenized(source, model, row_tokens))
    for shard, rows in enumerate(_shards(pieces, row_tokens, origins)):
        writer.put(shard, rows_table(rows), **row_facts(rows))
        yield tally.facts()
    tally.check(row_tokens)
    numbers = np.frombuffer(origins, np.int64)
    write_origins(writer.artefact, numbers)
    yield tally.facts() | {"origins": len(np.unique(numbers))}


def _tokenized(source: Source, model: str, row_tokens: int) -> Iterator[pa.Table]:
    """Yield the pieces of all documents, in their order, with the problems of those that cannot be used."""
    import ray
    import ray.data

    set_context(in_order=True)
    tokenized = read_all(source).map_batches(
        Tokenize(model, source, row_tokens),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        # Each has THREADS threads. More tasks would each import transformers, and encode no faster.
        concurrency=max(1, int(ray.cluster_resources().get("CPU", 1)) // THREADS),
    )
    yield from tokenized.iter_batches(batch_size=None, batch_format="pyarrow")


def _shards(batches: Iterator[Pieces], row_tokens: int, origins: "array[int]") -> Iterator[Arrays]:
    """Yield rows in shards of about SHARD_ROWS; append the document that each piece in them comes from to `origins`."""
    waiting: list[Arrays] = []
    document = 0
    for pieces in _windows(batches):
        keep = [number for number, outcome in enumerate(pieces.outcome) if outcome <= CUT]
        if keep:
            ids, weights = [pieces.ids[number] for number in keep], [pieces.weights[number] for number in keep]
            waiting.append(pack_rows(ids, weights, document, row_tokens))
            origins.extend(pieces.origins[number] for number in keep)
            document += len(keep)
        if sum(len(part["ids"]) for part in waiting) >= SHARD_ROWS:
            yield concatenate(waiting)
            waiting = []
    if waiting:
        yield concatenate(waiting)


def _windows(batches: Iterator[Pieces]) -> Iterator[Pieces]:
    """Yield the pieces in windows of WINDOW, whatever the batches are."""
    waiting = Pieces()
    for pieces in batches:
        waiting.ids += pieces.ids
        waiting.weights += pieces.weights
        waiting.outcome += pieces.outcome
        waiting.origins += pieces.origins
        while len(waiting.outcome) >= WINDOW:
            yield waiting.take(WINDOW)
    if waiting.outcome:
        yield waiting
