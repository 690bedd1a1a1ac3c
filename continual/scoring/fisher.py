"""The diagonal of the Fisher information of a model on some documents, one tensor per parameter."""

from pathlib import Path
from typing import Any

import numpy as np

from continual.config.schema import Generate
from continual.contract.mitigation import ModelRef
from continual.data.rows import column
from continual.models import load_model
from continual.store import Artefact, Store
from continual.store.artefact import versions

FILE = "fisher.safetensors"
COLUMNS = ("ids", "weights", "documents")
Document = tuple[np.ndarray, np.ndarray]


def score_fisher(
    store: Store, model: ModelRef, rows: Artefact, config: Generate, sequences: int = 256, seed: int = 0
) -> Artefact:
    """F of `model` on `sequences` documents of `rows` (all if there are fewer), from the store where it has it.

    One task of the cluster, with a replica's CPUs and GPUs, holds the model and writes `fisher.safetensors`.
    """
    inputs = {
        "what": "fisher",
        "model": model.hash,
        "rows": rows.hash,
        "sequences": sequences,
        "seed": seed,
        "versions": versions(("transformers", "torch")),
    }
    artefact = store.artefact("fisher", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            _run((model.path, rows, sequences, seed, str(artefact.path), config.gpus_per_replica > 0), config)
            writer.finish(model=model.hash, rows_artefact=rows.hash)
    return artefact


def _run(arguments: tuple[Any, ...], config: Generate) -> None:
    import ray

    task = ray.remote(_make).options(num_cpus=config.cpus_per_replica, num_gpus=config.gpus_per_replica or None)
    ray.get(task.remote(*arguments))


def _make(model: str, rows: Artefact, sequences: int, seed: int, folder: str, gpu: bool) -> None:
    """In the cluster: load, go over the documents, write."""
    from safetensors.torch import save_file

    # float32 whatever the model's dtype: squares of small gradients vanish in a shorter one.
    loaded = load_model(model, "float32", "cuda" if gpu else "cpu")
    found = fisher(loaded, chosen(rows, sequences, seed), seed)
    temporary = Path(folder) / f".{FILE}.tmp"
    save_file({name: tensor.cpu().contiguous() for name, tensor in found.items()}, temporary)
    temporary.replace(Path(folder) / FILE)


def chosen(rows: Artefact, count: int, seed: int) -> list[Document]:
    """Ids and weights of `count` documents with a trained token, drawn without replacement."""
    found: list[Document] = []
    for table in rows.tables():
        ids, weights, documents = (column(table, name).reshape(-1) for name in COLUMNS)
        # A document's tokens stand together: it begins where the number changes.
        cuts = np.flatnonzero(np.diff(documents)) + 1
        parts = zip(*(np.split(array, cuts) for array in (ids, weights, documents)), strict=True)
        found += [(i, w) for i, w, d in parts if d[0] >= 0 and (w > 0).any()]
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[number] for number in order]


def fisher(model: Any, documents: list[Document], seed: int) -> dict[str, Any]:
    """F = mean over documents of (d log p(y) / d theta)^2, float32 tensors by parameter name.

    log p(y) sums over the document's trained tokens, and every y is drawn from the model itself, given the document's
    true tokens before it: with the true tokens in its place it would be the empirical Fisher, another matrix.
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
