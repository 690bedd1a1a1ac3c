"""What runs at one time: sampling and scoring beside training, workers that stay; as asked, or as resources allow."""

from typing import Literal, NamedTuple

from continual.config.measured import evaluation_tasks
from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.nodes import Node, fitting_cpus
from continual.preflight.resources import Demand, beside, check_resources, scoring, while_training
from continual.preflight.stages import acting, needed_first, uses_sampling
from continual.training.resources import FREE_CPUS, READING_CPUS, worker_cpus

Delivery = Literal["stream", "store"]


class Overlap(NamedTuple):
    """Whether scoring overlaps with the next stage, and why."""

    beside: bool
    why: str


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


def placed_on(sequence: Sequence, machines: list[Node], cpus: float, gpus: float) -> tuple[Delivery, str, float]:
    """Return how samples are delivered on the nodes of a cluster, why, and the CPUs of each worker.

    Where the whole cluster could stream and its nodes cannot, `auto` stores. Raises ConfigurationError.
    """
    delivery, why = chosen_delivery(sequence, cpus, gpus)
    try:
        wanted = worker_cpus(sequence.train, training_cpus(sequence, delivery, cpus or 1.0))
        return delivery, why, fitting_cpus(sequence, delivery == "stream", machines, wanted)
    except ConfigurationError as error:
        if delivery == "store" or sequence.generate.delivery != "auto":
            raise
        wanted = worker_cpus(sequence.train, training_cpus(sequence, "store", cpus or 1.0))
        return "store", error.problem, fitting_cpus(sequence, False, machines, wanted)


def check_placement(sequence: Sequence, cpus: float | None, gpus: float | None) -> None:
    """Raise ConfigurationError if a sequence needs more than a cluster's CPUs and GPUs (None: unknown)."""
    check_resources(sequence, cpus, gpus)
    scores_beside(sequence, chosen_delivery(sequence, cpus, gpus).delivery, cpus, gpus)


def training_cpus(sequence: Sequence, delivery: Delivery, cpus: float) -> float:
    """Return how many of `cpus` the training may reserve: what works beside it, or beside workers that stay, has its
    own.
    """
    if delivery == "stream":
        return cpus - sum(demand.cpus for demand in while_training(sequence))
    return cpus - _between(sequence, delivery).cpus if workers_stay(sequence, delivery, cpus, None) else cpus


def workers_stay(sequence: Sequence, delivery: Delivery, cpus: float, gpus: float | None) -> bool:
    """Return whether workers can keep what they reserve while the next stage is prepared and this one is scored.

    `gpus` is None for the CPUs alone.
    """
    train, evaluate, between = sequence.train, sequence.evaluate, _between(sequence, delivery)
    free = training_cpus(sequence, delivery, cpus) if delivery == "stream" else cpus - between.cpus
    if train.workers * worker_cpus(train, free) + between.cpus + READING_CPUS > cpus:
        return False
    most = max(between.gpus, evaluate.replicas * evaluate.reserved_gpus)
    return gpus is None or train.workers * train.gpus_per_worker + most <= gpus


def scores_beside(sequence: Sequence, delivery: Delivery, cpus: float | None, gpus: float | None) -> Overlap:
    """Return whether a stage is scored while the next one samples and trains.

    The evaluating processes take cores that nothing else needs, or GPUs of their own. Raises ConfigurationError if that
    is asked for and does not fit.
    """
    evaluate = sequence.evaluate
    if not evaluation_tasks(sequence) + evaluate.texts:
        return Overlap(False, "nothing is scored")
    if evaluate.overlap is False:
        return Overlap(False, "as `evaluate.overlap` says")
    if cpus is None or gpus is None:
        return Overlap(False, "the resources are unknown")
    stage = _at_most(sequence, delivery, cpus, gpus)
    needed = evaluate.replicas * evaluate.reserved_gpus + stage.gpus
    if evaluate.overlap is True and needed > gpus:
        problem = f"scoring beside the next stage takes {needed:g} GPUs, but there are {gpus:g}"
        raise ConfigurationError("evaluate.overlap", problem, "write auto, or false")
    if evaluate.overlap is True:
        return Overlap(True, "as `evaluate.overlap` says")
    if needed > gpus:
        return Overlap(False, f"with what a stage takes that is {needed:g} GPUs of {gpus:g}")
    taken = stage.cpus + FREE_CPUS + evaluate.replicas
    if not evaluate.reserved_gpus and taken > cpus:
        return Overlap(False, f"with what a stage takes that is {taken:g} CPUs of {cpus:g}")
    return Overlap(True, "both fit at one time")


def _between(sequence: Sequence, delivery: Delivery) -> Demand:
    """Return the most that works between two stages: engines, what scores, or the reading of a source."""
    generate = sequence.generate
    acts = any(acting(sequence, number) for number in range(1, len(sequence.stages) + 1))
    replicas = generate.replicas * acts
    others = while_training(sequence) if delivery == "stream" else []
    cpus = max(replicas * generate.cpus_per_replica, sum(demand.cpus for demand in others), FREE_CPUS)
    gpus = max(replicas * generate.gpus_per_replica, sum(demand.gpus for demand in others))
    return Demand("preparing a stage", cpus, gpus, "generate.replicas")


def _at_most(sequence: Sequence, delivery: Delivery, cpus: float, gpus: float) -> Demand:
    """Return the most that a stage takes at one time; of the CPUs, the least that the training can do with."""
    train, between = sequence.train, _between(sequence, delivery)
    training = Demand(
        "training", max(train.workers * worker_cpus(train, 0.0), 1.0), train.workers * train.gpus_per_worker, ""
    )
    together = delivery == "stream" or workers_stay(sequence, delivery, cpus, gpus)
    most = sum if together else max
    return Demand("a stage", most([training.cpus, between.cpus]), most([training.gpus, between.gpus]), "")
