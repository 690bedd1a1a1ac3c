"""Representations of texts by a frozen model, in the store: made in the cluster, shard by shard, once per model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa

from continual.contract.models import ModelRef
from continual.data.formats import special_prefix
from continual.data.remote import in_cluster_with
from continual.data.rows import column, fixed_column
from continual.data.spans import encode_texts
from continual.errors import ContinualError, one_line
from continual.models import load_model, load_tokenizer
from continual.store import Artefact, Store, digest
from continual.store.artefact import Writer, versions

SHARD_TEXTS = 512
"""Texts of a stored shard, the unit of resume."""
VECTORS = "representation"
CUT = "cut"
"""The count of the texts that are longer than a row."""


def represented_inputs(model: str, texts: Sequence[str], row_tokens: int, dtype: str) -> dict[str, Any]:
    """Return what decides the representations of some texts by the model with the hash `model`."""
    return {
        "what": "mean of the last hidden states",
        "model": model,
        "texts": digest(list(texts)),
        "row_tokens": row_tokens,
        "dtype": dtype,
        "versions": versions(("transformers", "torch")),
    }


def representations(store: Store, model: str, texts: Sequence[str], row_tokens: int, dtype: str) -> Artefact:
    """Return where the representations of texts by the model with the hash `model` are, or will be.

    The representation of a text, a row of `read_representations`, is the mean of the model's last hidden states over
    the text's tokens, as Jin & Ren's code (2406.14026, collect_sentence_reps.py) has it of any encoder. What the
    tokenizer puts before every text stands before it, but is not in the mean, as it would be in every one. Of a text
    that is longer than a row, the tokens that fit count.
    """
    return store.artefact("representations", represented_inputs(model, texts, row_tokens, dtype))


def represent(
    store: Store,
    model: ModelRef,
    lists: Iterable[Sequence[str]],
    row_tokens: int,
    dtype: str,
    gpus: float = 0.0,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, shards: None,
) -> None:
    """Store the `representations` of each list of texts; what is there is not made again.

    One process of the cluster, with `gpus` GPUs, or `threads` of torch on CPUs, loads the model once, for all lists.
    `progress(shards done, shards in all)` is called after each shard.
    """
    # By their addresses: equal lists are one, and two runs that take the locks in one order never wait for each other.
    places = [(representations(store, model.hash, texts, row_tokens, dtype), texts) for texts in lists]
    wanted = {artefact.hash: (artefact, texts) for artefact, texts in places}
    with ExitStack() as held:
        work: list[tuple[Writer, Sequence[str]]] = []
        for _, (artefact, texts) in sorted(wanted.items()):
            inputs = represented_inputs(model.hash, texts, row_tokens, dtype)
            if writer := held.enter_context(store.write(artefact, inputs)):
                work.append((writer, texts))
        missing = sum(len(writer.missing(_shards(texts))) for writer, texts in work)
        if missing:
            arguments = (work, model.path, row_tokens, dtype, "cuda" if gpus else "cpu", threads)
            for done, _ in enumerate(in_cluster_with(0.0, gpus, None, write_representations, *arguments), 1):
                progress(done, missing)
        for writer, _ in work:
            writer.finish(model=model.hash)


def _shards(texts: Sequence[str]) -> int:
    return -(-len(texts) // SHARD_TEXTS)


def write_representations(
    work: Sequence[tuple[Writer, Sequence[str]]], model: str, row_tokens: int, dtype: str, device: str, threads: int
) -> Iterator[int]:
    """Load the model, and publish the shards that are missing; runs in the cluster. Yield the number of each shard.

    Raises ContinualError if the tokenizer fails on a text.
    """
    import torch

    from continual.scoring.hidden import mean_hidden_states

    torch.set_num_threads(threads)
    tokenizer, loaded = load_tokenizer(model), load_model(model, dtype, device)
    for writer, texts in work:
        for shard in writer.missing(_shards(texts)):
            part = texts[shard * SHARD_TEXTS : (shard + 1) * SHARD_TEXTS]
            ids, weights, cut = tokens_of(tokenizer, part, row_tokens)
            vectors = mean_hidden_states(loaded, ids, weights, row_tokens)
            writer.put(shard, pa.table({VECTORS: fixed_column(vectors)}), **{CUT: cut})
            yield shard


def tokens_of(tokenizer: Any, texts: Sequence[str], row_tokens: int) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Return the ids of texts, cut to a row; weights that are 1 for a text's own tokens; and how many texts are cut."""
    prefix = special_prefix(tokenizer)
    ids, weights, cut = list[np.ndarray](), list[np.ndarray](), 0
    for found in encode_texts(tokenizer, [(text, ()) for text in texts]):
        if isinstance(found, Exception):
            raise ContinualError(f"the tokenizer fails on a text ({one_line(found)})") from found
        own = found[0]
        if prefix and own[: len(prefix)] == prefix:  # the text brings it itself
            own = own[len(prefix) :]
        kept = own[: row_tokens - len(prefix)]
        cut += len(kept) < len(own)
        ids.append(np.array([*prefix, *kept], np.int32))
        weights.append(np.repeat(np.array([0.0, 1.0], np.float32), [len(prefix), len(kept)]))
    return ids, weights, cut


def read_representations(artefact: Artefact) -> np.ndarray:
    """Return the representations of all texts of an artefact, float32 [texts, H], in their order."""
    return np.concatenate([column(table, VECTORS) for table in artefact.tables()])


def cut_texts(artefact: Artefact) -> int:
    """Return how many texts of an artefact are longer than a row."""
    return int(artefact.manifest()["counts"].get(CUT, 0))
