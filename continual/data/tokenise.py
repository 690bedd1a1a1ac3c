"""Read, tokenise and pack a data source with Ray Data; publish the rows shard by shard."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from continual.contract.source import Source
from continual.data import formats
from continual.data.packing import Arrays, concatenate, pack_rows
from continual.data.rows import row_facts, rows_table
from continual.errors import ConfigurationError
from continual.models.files import tokenizer_hash
from continual.models.load import load_tokenizer
from continual.store import Artefact, Store

WINDOW = 1024
"""Documents packed together; larger wastes less room, smaller answers sooner."""
SHARD_ROWS = 2048


class Tokenise:
    """Batches of JSON documents to batches of pieces; runs in Ray Data tasks."""

    def __init__(self, model: str, source: Source, row_tokens: int):
        self.model, self.source, self.row_tokens = model, source, row_tokens

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        tokenizer = load_tokenizer(self.model)
        pieces: list[formats.Piece] = []
        problem: ConfigurationError | None = None
        for item in batch["item"]:
            try:
                pieces += formats.encode(json.loads(item), self.source, tokenizer, self.row_tokens)
            except ConfigurationError as error:
                problem = problem or error
            except ValueError as error:
                what = f"{self.source.title}: a line is not JSON ({error}): {str(item).strip()[:60]!r}"
                problem = problem or ConfigurationError("", what)
        # An exception raised here would reach the driver without its type: Ray keeps only its text.
        if problem is not None:
            pieces = [formats.Piece(np.zeros(0, np.int32), np.zeros(0, np.float32), formats.PROBLEM)]
        return {
            "ids": [piece.ids for piece in pieces],
            "weights": [piece.weights for piece in pieces],
            "outcome": [piece.outcome for piece in pieces],
            "problem": [json.dumps([problem.key, problem.problem, problem.fix]) if problem else ""] * len(pieces),
        }


def prepare_rows(
    store: Store, source: Source, model: str, row_tokens: int, progress: Callable[[int], None] | None = None
) -> Artefact:
    """Packed rows of a source under the tokenizer of the model folder `model`, made once per content and settings.

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
            counts = np.zeros(4, np.int64)
            shard = 0
            for rows in _shards(_pieces(source, model, row_tokens), counts, row_tokens):
                writer.put(shard, rows_table(rows), **row_facts(rows))
                shard += 1
                if progress:
                    progress(int(counts.sum()))
            whole, cut, dropped, empty = (int(value) for value in counts)
            if shard == 0:
                why = f"{dropped} too long for {row_tokens} tokens, {empty} empty"
                fix = "raise `train.row_tokens` or set `overlong: cut`" if dropped else "check the source"
                raise ConfigurationError("", f"the source has no usable document ({why})", fix)
            writer.finish(documents=whole + cut, cut=cut, dropped=dropped, empty=empty, source=source.model_dump())
    return artefact


def _pieces(source: Source, model: str, row_tokens: int) -> Iterator[dict[str, np.ndarray]]:
    import ray.data

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    documents = source.documents()
    tokenized = (documents.limit(source.limit) if source.limit else documents).map_batches(
        Tokenise(model, source, row_tokens), batch_size=WINDOW, num_cpus=1, zero_copy_batch=False
    )
    for batch in tokenized.iter_batches(batch_size=WINDOW, batch_format="numpy"):
        for problem in batch["problem"]:
            if problem:
                raise ConfigurationError(*json.loads(problem))
        yield batch


def _shards(batches: Iterator[dict[str, np.ndarray]], counts: np.ndarray, row_tokens: int) -> Iterator[Arrays]:
    """Rows in shards of about SHARD_ROWS; `counts` (by outcome) is filled on the way."""
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
