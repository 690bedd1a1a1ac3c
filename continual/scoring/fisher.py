"""The diagonal of the Fisher information of a model on some documents, one tensor per parameter."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.rows import column
from continual.models import load_model
from continual.store import Artefact, Store
from continual.store.artefact import versions

FILE = "fisher.safetensors"
COLUMNS = ("ids", "weights", "documents")
Document = tuple[np.ndarray, np.ndarray]
"""Token ids and loss weights, each [tokens]."""


def fisher_artefact(
    store: Store, model: ModelRef, rows: Artefact, config: Generate, count: int = 256, seed: int = 0
) -> Artefact:
    """Return the diagonal Fisher of `model` on `count` documents of `rows` (or all of them); cached in the store.

    One task of the cluster, with the CPUs and GPUs of a replica, holds the model and writes `fisher.safetensors`.
    """
    inputs = {
        "what": "fisher",
        "model": model.hash,
        "rows": rows.hash,
        "sequences": count,
        "seed": seed,
        "versions": versions(("transformers", "torch")),
    }
    artefact = store.artefact("fisher", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            import ray

            cpus, gpus = config.cpus_per_replica, config.gpus_per_replica
            task = ray.remote(_write_fisher).options(num_cpus=cpus, num_gpus=gpus or None)
            with writer.files() as folder:
                ray.get(task.remote(model.path, rows, count, seed, folder, "cuda" if gpus else "cpu"))
            writer.finish(model=model.hash, rows_artefact=rows.hash)
    return artefact


def _write_fisher(model: str, rows: Artefact, count: int, seed: int, folder: Path, device: str) -> None:
    """Load the model, estimate its Fisher and write it; runs in the cluster."""
    from safetensors.torch import save_file

    # float32 whatever the model's dtype: squares of small gradients vanish in a shorter one.
    fisher = estimate_fisher(load_model(model, "float32", device), draw_documents(rows, count, seed), seed)
    save_file({name: tensor.cpu().contiguous() for name, tensor in fisher.items()}, folder / FILE)


def draw_documents(rows: Artefact, count: int, seed: int) -> list[Document]:
    """Draw `count` documents that have a trained token, without replacement. Memory holds them and a shard."""
    starts = np.cumsum([0, *(len(_documents(table)) for table in rows.tables())])
    order = np.random.default_rng(seed).permutation(int(starts[-1]))[:count]
    drawn: dict[int, Document] = {}
    for table, first, end in zip(rows.tables(), starts, starts[1:], strict=False):
        numbers = order[(order >= first) & (order < end)]
        documents = _documents(table) if len(numbers) else []
        for number in numbers.tolist():
            ids, weights = documents[number - first]
            drawn[number] = (ids.copy(), weights.copy())
    return [drawn[number] for number in order.tolist()]


def _documents(table: pa.Table) -> list[Document]:
    """Return the documents of a shard of rows that have a trained token, as views of the shard."""
    ids, weights, documents = (column(table, name).reshape(-1) for name in COLUMNS)
    # The tokens of a document are adjacent: a new one begins where the number changes.
    borders = np.flatnonzero(np.diff(documents)) + 1
    parts = zip(*(np.split(array, borders) for array in (ids, weights, documents)), strict=True)
    return [(i, w) for i, w, d in parts if d[0] >= 0 and (w > 0).any()]


def estimate_fisher(model: Any, documents: list[Document], seed: int) -> dict[str, Any]:
    """Return F = mean over documents of (d log p(y) / d theta)^2, float32 tensors by parameter name.

    log p(y) sums over the document's trained tokens. Every y is drawn from the model itself, given the document's
    true tokens before it; with the true tokens in its place this would be the empirical Fisher, another matrix.
    """
    import torch

    random = torch.Generator(model.device).manual_seed(seed)
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for ids, weights in documents:
        model.zero_grad()
        tokens = torch.from_numpy(ids.astype(np.int64)).to(model.device)
        trained = torch.from_numpy(weights[1:] > 0).to(model.device)
        log_p = torch.log_softmax(model(input_ids=tokens[None], use_cache=False).logits[0, :-1], -1)[trained]
        drawn = torch.multinomial(log_p.detach().exp(), 1, generator=random)
        log_p.gather(-1, drawn).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad**2
    return {name: value / max(1, len(documents)) for name, value in total.items()}
