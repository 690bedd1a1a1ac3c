"""Whether what a run starts has room on the nodes of a cluster, each of which has less than the cluster."""

from collections.abc import Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.resources import scoring
from continual.preflight.stages import samples_in_order, uses_sampling

LEAST_CPUS = 0.05
"""Reserved by a worker at least."""
READER_CPUS = 0.1
"""Of a task that reads some steps' rows."""


@dataclass(frozen=True)
class Node:
    """The CPUs and GPUs of a node, or what is left of them."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Part:
    """What a process takes of its node, and the key that decides it."""

    cpus: float
    gpus: float
    what: str
    key: str


def fitting_cpus(sequence: Sequence, streamed: bool, nodes: Several[Node], wanted: float) -> float:
    """Return the CPUs that each worker can reserve: as many as it wants, or the most with which all have room.

    Without room Ray would wait for a node that has it, without an end. Of a single node the whole is the node, which
    other checks compare.

    Args:
        sequence: With everything decided that it leaves to the resources.
        streamed: Whether samples are made while a stage trains.
        nodes: The nodes of the cluster.
        wanted: CPUs of a worker by the resources of the whole cluster.

    Raises:
        ConfigurationError: Something has no room on the nodes.
    """
    if len(nodes) < 2:
        return wanted
    for part, count in _alone(sequence):
        if _left([part] * count, nodes) is None:
            raise _no_room(part, count, nodes, "lower it")
    train = sequence.train
    left = _left(_beside(sequence, streamed), nodes)
    if left is None:
        problem = f"what samples and scores while a stage trains has no room on nodes with {_listed(nodes)}"
        raise ConfigurationError("generate.delivery", problem, "write `generate.delivery: store`")
    for cpus in _shares(wanted, train.workers, left):
        if sum(_room(node, cpus, train.gpus_per_worker) for node in left) >= train.workers:
            if train.cpus_per_worker and cpus < wanted:
                part = Part(wanted, train.gpus_per_worker, "worker", "train.cpus_per_worker")
                raise _no_room(part, train.workers, nodes, f"write at most {cpus:g}, or null")
            return cpus
    part = Part(min(wanted, LEAST_CPUS), train.gpus_per_worker, "worker", "train.workers")
    raise _no_room(part, train.workers, nodes, "use fewer workers, or `train.gpus_per_worker` that a node has")


def _alone(sequence: Sequence) -> list[tuple[Part, int]]:
    """Return what runs before or after a stage trains, and how often."""
    generate, evaluate = sequence.generate, sequence.evaluate
    engine = Part(generate.cpus_per_replica, generate.gpus_per_replica, "engine", "generate.replicas")
    evaluator = Part(0.0, evaluate.reserved_gpus, "evaluator", "evaluate.replicas")
    return [(engine, generate.replicas)] * uses_sampling(sequence) + [(evaluator, evaluate.replicas)]


def _beside(sequence: Sequence, streamed: bool) -> list[Part]:
    """Return what runs while a stage trains: engines, what scores, evaluators of `evaluate.every`, the readers."""
    generate, evaluate = sequence.generate, sequence.evaluate
    engine = Part(generate.cpus_per_replica, generate.gpus_per_replica, "engine", "generate.replicas")
    engines = generate.replicas * (samples_in_order(sequence) and streamed) + (
        streamed and scoring(sequence) is not None
    )
    evaluator = Part(0.0, evaluate.reserved_gpus, "evaluator", "evaluate.replicas")
    evaluators = evaluate.replicas * bool(evaluate.every)
    return [engine] * engines + [evaluator] * evaluators + [Part(READER_CPUS, 0.0, "reader", "")]


def _left(parts: Iterable[Part], nodes: Several[Node]) -> list[Node] | None:
    """Return what is left of the nodes when each part has been put where least GPUs, then most CPUs are; None if one
    has no room.
    """
    left = list(nodes)
    for part in sorted(parts, key=lambda one: (-one.gpus, -one.cpus)):
        fits = [place for place, node in enumerate(left) if node.cpus >= part.cpus and node.gpus >= part.gpus]
        if not fits:
            return None
        place = min(fits, key=lambda place: (left[place].gpus, -left[place].cpus))
        left[place] = Node(left[place].cpus - part.cpus, left[place].gpus - part.gpus)
    return left


def _shares(wanted: float, workers: int, nodes: Several[Node]) -> list[float]:
    """Return what a worker may get at most: all CPUs that it wants, or an equal part of a node's; largest first."""
    parts = {_rounded(node.cpus / count) for node in nodes for count in range(1, workers + 1)}
    return [wanted, *sorted((part for part in parts if LEAST_CPUS <= part < wanted), reverse=True)]


def _rounded(cpus: float) -> float:
    """Round down, to whole CPUs where there is one."""
    return float(int(cpus)) if cpus >= 1 else int(100 * cpus) / 100


def _room(node: Node, cpus: float, gpus: float) -> int:
    """Return how many workers with so many CPUs and GPUs a node has room for."""
    by_cpus = int(node.cpus / cpus + 1e-9)
    return min(by_cpus, int(node.gpus / gpus + 1e-9)) if gpus else by_cpus


def _no_room(part: Part, count: int, nodes: Several[Node], fix: str) -> ConfigurationError:
    takes = _counted(part)
    article = "an" if part.what[0] in "aeiou" else "a"
    who = f"{count} {part.what}s of {takes} each have" if count > 1 else f"{article} {part.what} of {takes} has"
    return ConfigurationError(part.key, f"{who} no room on nodes with {_listed(nodes)}", fix)


def _listed(nodes: Several[Node]) -> str:
    """Return the nodes in words, equal ones together."""
    counts = {node: nodes.count(node) for node in sorted(nodes, key=lambda one: (-one.gpus, -one.cpus))}
    return ", ".join((f"{count} x " if count > 1 else "") + _counted(node) for node, count in counts.items())


def _counted(of: Node | Part) -> str:
    """Return CPUs and GPUs in words."""
    words = [f"{of.cpus:g} CPU{'s' * (of.cpus != 1)}"] + [f"{of.gpus:g} GPU{'s' * (of.gpus != 1)}"] * bool(of.gpus)
    return " and ".join(words)
