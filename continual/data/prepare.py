"""Read, tokenize and pack a data source with Ray Data; publish the rows shard by shard."""

import json
from collections.abc import Callable, Iterator

import numpy as np

from continual.contract.source import Source
from continual.data import formats
from continual.data.packing import Arrays, concatenate, pack_rows
from continual.data.remote import in_cluster
from continual.data.rows import row_facts, rows_table
from continual.data.tokenize import Tokenize
from continual.errors import ConfigurationError
from continual.models.files import tokenizer_hash
from continual.store import Artefact, Store
from continual.store.artefact import Writer

WINDOW = 1024
"""Pieces packed together; larger wastes less room, smaller answers sooner."""
SHARD_ROWS = 2048


def prepare_rows(
    store: Store, source: Source, model: str, row_tokens: int, progress: Callable[[int], None] | None = None
) -> Artefact:
    """Return packed rows of a source under the tokenizer of the model folder `model`; cached in the store.

    Raises ConfigurationError when no document is left, or a field is missing.
    """
    inputs = {
        "source": source.identity(),
        "tokenizer": tokenizer_hash(model),
        "row_tokens": row_tokens,
        "window": WINDOW,
    }
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            counts = [0, 0, 0, 0]
            for counts in in_cluster(write_rows, writer, source, model, row_tokens):
                if progress:
                    progress(sum(counts))
            whole, cut, dropped, empty = counts
            if whole + cut == 0:
                why = f"{dropped} too long for {row_tokens} tokens, {empty} empty"
                fix = "raise `train.row_tokens` or set `overlong: cut`" if dropped else "check the source"
                raise ConfigurationError("", f"the source has no usable document ({why})", fix)
            writer.finish(documents=whole + cut, cut=cut, dropped=dropped, empty=empty, source=source.model_dump())
    return artefact


def write_rows(writer: Writer, source: Source, model: str, row_tokens: int) -> Iterator[list[int]]:
    """Publish the rows of a source; yield the pieces so far, by outcome, after every shard and at the end."""
    counts = np.zeros(4, np.int64)
    for shard, rows in enumerate(_shards(_pieces(source, model, row_tokens), counts, row_tokens)):
        writer.put(shard, rows_table(rows), **row_facts(rows))
        yield counts.tolist()
    yield counts.tolist()


def _pieces(source: Source, model: str, row_tokens: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the pieces of all documents, in their order, in windows. Raises the first document's ConfigurationError."""
    import ray.data

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    documents = source.documents()
    tokenized = (documents.limit(source.limit) if source.limit else documents).map_batches(
        Tokenize(model, source, row_tokens), batch_size=WINDOW, num_cpus=1, zero_copy_batch=False
    )
    for batch in tokenized.iter_batches(batch_size=WINDOW, batch_format="numpy"):
        for problem in batch["problem"]:
            if problem:
                raise ConfigurationError(*json.loads(problem))
        yield batch


def _shards(batches: Iterator[dict[str, np.ndarray]], counts: np.ndarray, row_tokens: int) -> Iterator[Arrays]:
    """Yield rows in shards of about SHARD_ROWS, and add each batch's outcomes to `counts`."""
    waiting: list[Arrays] = []
    document = 0
    for batch in batches:
        outcome = np.asarray(batch["outcome"])
        counts += np.bincount(outcome, minlength=4)
        keep = np.flatnonzero(outcome <= formats.CUT)
        if len(keep):
            ids, weights = batch["ids"], batch["weights"]
            waiting.append(pack_rows([ids[i] for i in keep], [weights[i] for i in keep], document, row_tokens))
            document += len(keep)
        if sum(len(part["ids"]) for part in waiting) >= SHARD_ROWS:
            yield concatenate(waiting)
            waiting = []
    if waiting:
        yield concatenate(waiting)
