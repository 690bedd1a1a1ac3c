"""Measure some documents of the upstream text before and after a task that the matrix doesn't know."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from continual.associations.matrix import Associations
from continual.config.load import Loaded, load_sequence
from continual.data.chosen import chosen_from
from continual.errors import ConfigurationError, ContinualError
from continual.evaluation.outcomes import stored_values
from continual.ledger.ledger import read_events
from continual.models.start import cached_hash
from continual.preflight.model_facts import read_model
from continual.store import Store
from continual.store.files import digest

DIFFERENCE = 1e-3
"""Nats per token by which a document may differ from the matrix before the task: batches round otherwise."""


def load_task(path: str | Path, arguments: list[str], matrix: Associations, columns: np.ndarray) -> Loaded:
    """Load the sequence of one stage, with the documents in `columns` [K] alone as its text.

    Raises ConfigurationError if it is not one stage, has not the matrix's text, or begins with another model.
    """
    upstream = matrix.facts["upstream"]
    if matrix.kind == "lost":
        problem = f"the matrix is about the answers of the task `{upstream}`, of which no part can be asked alone"
        raise ConfigurationError("--matrix", problem, "measure associations of a text")
    whole = load_sequence(path, arguments)
    if len(whole.sequence.stages) != 1:
        problem = f"a forecast is made for one task, and the sequence has {len(whole.sequence.stages)} stages"
        raise ConfigurationError("stages", problem, "leave one", whole.file)
    store = Store(Path(whole.sequence.storage) / "store")
    folder = read_model(whole.sequence.model)[0].folder  # of a model that is yet to be made, `measured` finds it
    if folder is not None and cached_hash(store, folder, remember=False) != matrix.facts["start_model"]:
        problem = f"{folder} is not the model from which the matrix's tasks were learned"
        raise ConfigurationError("model.source", problem, "use that model", whole.file)
    texts = {text.name: text for text in whole.sequence.evaluate.texts}
    if upstream not in texts:
        problem = f"the text `{upstream}`, which the matrix was measured on, is missing"
        raise ConfigurationError("evaluate.texts", problem, "copy it from the sequence of the associations", whole.file)
    others = [text.model_dump(mode="json") for name, text in texts.items() if name != upstream]
    probes = chosen_from(texts[upstream].data, [int(matrix.documents[column]) for column in columns])
    part = {"name": upstream, "data": probes.model_dump(mode="json")}
    # Other probes are another run of the same task, whose training is found in the store.
    name = f"{whole.sequence.name}-probes-{digest(columns.tolist())[:6]}"
    changed = [f"name={name}", f"evaluate.texts={json.dumps([*others, part])}"]
    return load_sequence(path, arguments, changed, whole.path.parent)


def measured(loaded: Loaded, matrix: Associations, columns: np.ndarray) -> np.ndarray:
    """Return the increase of the log-perplexity of the documents in `columns` [K] in a finished run, in nats per token.

    Raises ContinualError if records are gone, or if the start model scores a document otherwise than in the matrix.
    """
    upstream, store = matrix.facts["upstream"], Path(loaded.sequence.storage) / "store"
    scored = {event["stage"]: event for event in read_events(loaded.run_folder, "scored")}
    before, after = (_losses(scored[stage], upstream, store, len(columns)) for stage in (0, 1))
    # Documents are read in ascending order.
    order = np.argsort([int(matrix.documents[column]) for column in columns])
    known = matrix.before[columns][order]
    if np.abs(before - known).max() > DIFFERENCE:
        problem = f"the start model has other losses on `{upstream}` than in the matrix"
        largest = f"by up to {np.abs(before - known).max():.2g} nats per token"
        raise ContinualError(f"{problem} ({largest}); use the model, text and options of the associations")
    change = np.empty(len(columns))
    change[order] = after - before
    return change


def _losses(event: dict[str, Any], upstream: str, store: Path, count: int) -> np.ndarray:
    values = stored_values(event, upstream, store)
    if len(values) != count:
        problem = f"{len(values)} of {count} documents of `{upstream}` were measured"
        raise ContinualError(f"{problem}; run the same command with --fresh")
    numbers = {int(name.rpartition("/")[2]): -nats / tokens for name, (nats, tokens) in values.items()}
    return np.array([numbers[number] for number in sorted(numbers)])
