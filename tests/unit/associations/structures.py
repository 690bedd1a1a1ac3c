"""Matrices of a known structure, as associations."""

import numpy as np

from continual.associations.matrix import Associations, Kind


def associations_of(change, kind: Kind = "nats") -> Associations:
    """Associations with changes [M, N]; log-perplexities before are of no matter."""
    change = np.asarray(change, dtype=np.float64)
    tasks, documents = change.shape
    return Associations(
        tuple(f"task{number}" for number in range(tasks)),
        tuple(f"document{number}" for number in range(documents)),
        np.ones(documents) if kind == "lost" else np.linspace(1.0, 4.0, documents),
        change,
        kind,
        {"model": "m"},
    )


def additive(random, tasks, documents):
    return 0.3 + random.normal(0, 0.5, (tasks, 1)) + random.normal(0, 1, (1, documents))


def low_rank(random, tasks, documents, rank):
    """An additive matrix plus products of `rank` numbers, of about the same size together."""
    products = random.normal(0, 1, (tasks, rank)) @ random.normal(0, 1, (rank, documents))
    return additive(random, tasks, documents) + products / np.sqrt(rank)


def chances(random, tasks, documents, rank=2):
    """Chances of 1 whose log-odds are of low rank; about a fifth of the cells is 1."""
    return 1 / (1 + np.exp(2.0 - 2.0 * low_rank(random, tasks, documents, rank)))
