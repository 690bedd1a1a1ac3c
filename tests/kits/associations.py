"""Associations and forecasts as their commands leave them, of small random matrices, without any training."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from continual.associations.likeness import Likeness
from continual.associations.matrix import Associations, Kind
from continual.associations.predicted import chosen_error, write_forecast
from continual.associations.results import write_results
from continual.ledger.folder import AssociationsFolder
from continual.sweep.outputs import Written
from tests.unit.associations.structures import associations_of, low_rank

TASKS, DOCUMENTS, PROBES = 4, 12, 5


def matrix_of(seed: int = 0, kind: Kind = "nats") -> Associations:
    """Associations of the text `old`."""
    random = np.random.default_rng(seed)
    change = low_rank(random, TASKS, DOCUMENTS, 1) if kind == "nats" else random.integers(0, 2, (TASKS, DOCUMENTS))
    facts = {"upstream": "old", "wrong_before": 3 if kind == "lost" else 0}
    return replace(associations_of(change, kind), documents=tuple(map(str, range(DOCUMENTS))), facts=facts)


def loaded_of(name: str, probes: int = PROBES) -> Any:
    """What of a loaded YAML the results need: the options, and a sequence that has no text to compare with."""
    evaluate = SimpleNamespace(texts=[])
    base = SimpleNamespace(sequence=SimpleNamespace(seed=0, evaluate=evaluate, stages=[]))
    return SimpleNamespace(base=base, associate=SimpleNamespace(name=name, probes=probes, draws=2, upstream="old"))


def write_associations(folder: Path, matrix: Associations | None = None) -> Written:
    """Write what `continual.associate` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_results(AssociationsFolder(folder), Likeness(matrix or matrix_of(), loaded_of(folder.name)))


def write_forecast_of(folder: Path, seed: int = 0) -> str:
    """Write what `continual.forecast` leaves in a run's folder, of a task that is like the matrix's."""
    matrix, columns = matrix_of(), np.array([7, 0, 3, 11, 4])
    change = matrix.change.mean(0)[columns] + np.random.default_rng(seed).normal(0, 0.01, PROBES)
    return write_forecast(folder, matrix, columns, change, chosen_error(matrix, None, PROBES))
