"""Whether what a run starts has room on the nodes of a cluster, each of which has less than the cluster."""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.resources import scoring
from continual.preflight.stages import samples_in_order, uses_sampling
from continual.training.resources import LEAST_CPUS, READ_CPUS

ROUNDING, MOST = 1e-9, 1_000_000
MANY = {"engine": "replicas", "evaluator": "replicas", "worker": "workers"}
GPUS = {"engine": "gpus_per_replica", "evaluator": "gpus", "worker": "gpus_per_worker"}
CPUS = {"engine": "cpus_per_replica", "worker": "cpus_per_worker"}
"""The keys that say how many there are, and how many GPUs and CPUs each takes."""


@dataclass(frozen=True)
class Node:
    """The CPUs and GPUs of a node, or what is left of them."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Part:
    """What a process takes of its node, and the mapping whose keys decide it."""

    cpus: float
    gpus: float
    what: str
    key: str


def fitting_cpus(sequence: Sequence, streamed: bool, nodes: Several[Node], wanted: float) -> float:
    """Return the CPUs that each worker can reserve: as many as it wants, or the most with which all fit.

    Ray would wait forever for a node that is large enough. Of a single node the whole is the node, which
    other checks compare.

    Args:
        sequence: With everything decided that it leaves to the resources.
        streamed: Whether samples are made while a stage trains.
        nodes: The nodes of the cluster.
        wanted: CPUs of a worker by the resources of the whole cluster.

    Raises:
        ConfigurationError: A process does not fit on the nodes.
    """
    if len(nodes) < 2:
        return wanted
    for part, count in _alone(sequence):
        if _left([part] * count, nodes) is None:
            raise _no_room(part, count, nodes)
    train = sequence.train
    left = _left(_beside(sequence, streamed), nodes)
    if left is None:
        problem = f"the processes beside the training do not fit on nodes with {_listed(nodes)}"
        key = "generate.delivery" if streamed else "evaluate.every"
        fix = "write `generate.delivery: store`" if streamed else "leave it out, or write `evaluate.gpus: 0`"
        raise ConfigurationError(key, problem, fix)
    cpus = largest_share(wanted, train.workers, train.gpus_per_worker, left)
    if cpus is None:
        part = Part(0.0, train.gpus_per_worker, "worker", "train")
        raise _no_room(part, train.workers, nodes)
    if train.cpus_per_worker and cpus < wanted:
        part = Part(wanted, train.gpus_per_worker, "worker", "train")
        raise _no_room(part, train.workers, nodes, f"write `train.cpus_per_worker: {cpus:g}`, or null")
    return cpus


def largest_share(wanted: float, count: int, gpus: float, nodes: Several[Node]) -> float | None:
    """Return the most CPUs, `wanted` at most, of which `count` processes have room on the nodes with so many GPUs each.

    None if they have none with LEAST_CPUS.
    """
    return next((cpus for cpus in _shares(wanted, count, nodes) if _count(nodes, cpus, gpus) >= count), None)


def room_beside(sequence: Sequence, nodes: Several[Node], cpus: float) -> bool:
    """Return whether what runs between two stages has room beside workers that keep `cpus` each, wherever they are.

    Ray fills one node after the other, which may be those that an engine needs.
    """
    if len(nodes) < 2:
        return True
    train = sequence.train
    worker = Part(cpus, train.gpus_per_worker, "worker", "train")
    for largest_first in (True, False):
        left: list[Node] | None = sorted(nodes, key=lambda node: (node.gpus, node.cpus), reverse=largest_first)
        for _ in range(train.workers):
            left = left and _placed(worker, left, lambda node, place: place)
        if left is None or any(_left([part] * count, left) is None for part, count in _alone(sequence)):
            return False
    return True


def _alone(sequence: Sequence) -> list[tuple[Part, int]]:
    """Return what runs before or after a stage trains, and how often."""
    generate, evaluate = sequence.generate, sequence.evaluate
    engine = Part(generate.cpus_per_replica, generate.gpus_per_replica, "engine", "generate")
    evaluator = Part(0.0, evaluate.reserved_gpus, "evaluator", "evaluate")
    return [(engine, generate.replicas)] * uses_sampling(sequence) + [(evaluator, evaluate.replicas)]


def _beside(sequence: Sequence, streamed: bool) -> list[Part]:
    """Return what runs while a stage trains: engines, what scores, evaluators of `evaluate.every`, the readers."""
    generate, evaluate = sequence.generate, sequence.evaluate
    engine = Part(generate.cpus_per_replica, generate.gpus_per_replica, "engine", "generate")
    engines = generate.replicas * (samples_in_order(sequence) and streamed) + (
        streamed and scoring(sequence) is not None
    )
    evaluator = Part(0.0, evaluate.reserved_gpus, "evaluator", "evaluate")
    evaluators = evaluate.replicas * bool(evaluate.every)
    return [engine] * engines + [evaluator] * evaluators + [Part(READ_CPUS, 0.0, "reader", "")]


def _left(parts: Iterable[Part], nodes: Several[Node]) -> list[Node] | None:
    """Return what is left of the nodes when each part has been put where least GPUs, then most CPUs are; None if one
    does not fit.
    """
    left: list[Node] | None = list(nodes)
    for part in sorted(parts, key=lambda one: (-one.gpus, -one.cpus)):
        left = left and _placed(part, left, lambda node, place: (node.gpus, -node.cpus))
    return left


def _placed(part: Part, nodes: Several[Node], first: Callable[[Node, int], Any]) -> list[Node] | None:
    """Return what is left of the nodes when a part has been put on the `first` one with room; None if none has it."""
    fits = [place for place, node in enumerate(nodes) if _count([node], part.cpus, part.gpus)]
    if not fits:
        return None
    place = min(fits, key=lambda place: first(nodes[place], place))
    left = list(nodes)
    left[place] = Node(left[place].cpus - part.cpus, left[place].gpus - part.gpus)
    return left


def _shares(wanted: float, workers: int, nodes: Several[Node]) -> list[float]:
    """Return what a worker may get at most: all CPUs that it wants, or an equal part of a node's; largest first."""
    parts = {_rounded(node.cpus / count) for node in nodes for count in range(1, workers + 1)}
    return [wanted, *sorted((part for part in parts if LEAST_CPUS <= part < wanted), reverse=True)]


def _rounded(cpus: float) -> float:
    """Round down, to whole CPUs where there is one."""
    return float(int(cpus)) if cpus >= 1 else int(100 * cpus) / 100


def _count(nodes: Several[Node], cpus: float, gpus: float) -> int:
    """Return how many processes with so many CPUs and GPUs each the nodes have room for, MOST at most.

    A part of a GPU is one GPU's: of 0.6, a node with 2 GPUs has 2.
    """
    total = 0
    for node in nodes:
        by_cpus = int(node.cpus / cpus + ROUNDING) if cpus else MOST
        each = int(1 / gpus + ROUNDING) if 0 < gpus < 1 else 1
        by_gpus = int(node.gpus / max(gpus, 1.0) + ROUNDING) * each if gpus else MOST
        total += min(by_cpus, by_gpus)
    return total


def _no_room(part: Part, count: int, nodes: Several[Node], fix: str = "lower it") -> ConfigurationError:
    article = "an" if part.what[0] in "aeiou" else "a"
    takes = f"{count} {part.what}s with {_counted(part)} each do" if count > 1 else (
        f"{article} {part.what} with {_counted(part)} does"
    )  # fmt: skip
    if _count(nodes, part.cpus, part.gpus):
        key = MANY[part.what]
    else:
        key = CPUS[part.what] if _count(nodes, 0.0, part.gpus) else GPUS[part.what]
    return ConfigurationError(f"{part.key}.{key}", f"{takes} not fit on nodes with {_listed(nodes)}", fix)


def _listed(nodes: Several[Node]) -> str:
    """Return the nodes in words, equal ones together."""
    counts = {node: nodes.count(node) for node in sorted(nodes, key=lambda one: (-one.gpus, -one.cpus))}
    return ", ".join((f"{count} x " if count > 1 else "") + _counted(node) for node, count in counts.items())


def _counted(of: Node | Part) -> str:
    """Return CPUs and GPUs in words, as far as there are some."""
    numbers = [(of.cpus, "CPU")] * bool(of.cpus or not of.gpus) + [(of.gpus, "GPU")] * bool(of.gpus)
    return " and ".join(f"{number:g} {unit}{'s' * (number != 1)}" for number, unit in numbers)
