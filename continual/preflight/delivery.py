"""Whether a stage trains while its samples are made: what was asked for, or what the resources allow."""

from typing import Literal, NamedTuple

from continual.config.schema import Sequence
from continual.preflight.resources import Demand, beside, scoring, while_training
from continual.preflight.stages import needed_first, uses_sampling
from continual.training.resources import FREE_CPUS

Delivery = Literal["stream", "store"]


class Choice(NamedTuple):
    """The delivery, and why it was chosen, for the plan."""

    delivery: Delivery
    why: str


def chosen_delivery(sequence: Sequence, cpus: float | None, gpus: float | None) -> Choice:
    """Return how samples reach the training on a machine or cluster with so many CPUs and GPUs (None: unknown).

    `auto` streams where training, sampling and, with a cached teacher, scoring fit at one time.
    """
    asked, both = sequence.generate.delivery, beside(sequence)
    first = "; ".join(f"`{label}` comes first: {reason}" for label, reason in needed_first(sequence).items())
    if both is None:
        return Choice("store", (first if uses_sampling(sequence) else "") or "nothing is sampled")
    chosen = _fitting(sequence, both, cpus, gpus) if asked == "auto" else Choice(asked, "as `generate.delivery` says")
    return Choice("stream", f"{chosen.why}; {first}") if chosen.delivery == "stream" and first else chosen


def _fitting(sequence: Sequence, both: Demand, cpus: float | None, gpus: float | None) -> Choice:
    if cpus is None or gpus is None:
        return Choice("store", "the resources are unknown")
    scored = scoring(sequence) is not None
    together = f"to train{', sample and score' if scored else ' and sample'} at one time takes"
    if both.cpus + FREE_CPUS > cpus:
        return Choice("store", f"{together} {both.cpus + FREE_CPUS:g} CPUs of {cpus:g}")
    if both.gpus > gpus:
        return Choice("store", f"{together} {both.gpus:g} GPUs of {gpus:g}")
    return Choice("stream", f"training{', sampling and scoring' if scored else ' and sampling'} fit at one time")


def training_cpus(sequence: Sequence, delivery: Delivery, cpus: float) -> float:
    """Return how many of `cpus` the training may reserve: what works at the same time has its own."""
    return cpus - sum(demand.cpus for demand in while_training(sequence)) if delivery == "stream" else cpus
