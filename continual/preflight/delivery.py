"""Whether a stage trains while its samples are made: what was asked for, or what the resources allow."""

from typing import Literal, NamedTuple

from continual.config.schema import Sequence
from continual.preflight.resources import beside
from continual.training.resources import FREE_CPUS

Delivery = Literal["stream", "store"]


class Choice(NamedTuple):
    """The delivery, and why it was chosen, for the plan."""

    delivery: Delivery
    why: str


def chosen_delivery(sequence: Sequence, cpus: float | None, gpus: float | None) -> Choice:
    """Return how samples reach the training on a machine or cluster with so many CPUs and GPUs (None: unknown).

    `auto` streams where training and sampling fit at one time.
    """
    asked, both = sequence.generate.delivery, beside(sequence)
    if both is None:
        return Choice("store", "nothing is sampled")
    if asked != "auto":
        return Choice(asked, "as `generate.delivery` says")
    if cpus is None or gpus is None:
        return Choice("store", "the resources are unknown")
    if both.cpus + FREE_CPUS > cpus:
        return Choice("store", f"to train and sample at one time takes {both.cpus + FREE_CPUS:g} CPUs of {cpus:g}")
    if both.gpus > gpus:
        return Choice("store", f"to train and sample at one time takes {both.gpus:g} GPUs of {gpus:g}")
    return Choice("stream", "training and sampling fit at one time")


def training_cpus(sequence: Sequence, delivery: Delivery, cpus: float) -> float:
    """Return how many of `cpus` the training may reserve: where samples are streamed, the engines have their own."""
    generate = sequence.generate
    return cpus - generate.replicas * generate.cpus_per_replica if delivery == "stream" else cpus
