"""Whether trials that run at the same time fit beside their workers, and what each may take. Torch-free."""

import math
import os
from collections.abc import Iterable

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.resources import FREE_CPUS, demands

LEAST_CPUS = 0.05
"""CPUs that a worker reserves at least, where it takes a share of what there is."""


def needed(sequence: Sequence) -> tuple[float, float]:
    """CPUs and GPUs that a trial may hold at one time: its hungriest phase. Shares count as the least possible."""
    cpus, gpus = 0.0, 0.0
    for need in demands(sequence):
        shared = need.phase == "training" and not sequence.train.cpus_per_worker
        cpus = max(cpus, sequence.train.workers * LEAST_CPUS if shared else need.cpus)
        gpus = max(gpus, need.gpus)
    return cpus, gpus


def check_concurrency(sequences: Iterable[Sequence], concurrency: int, cpus: float | None, gpus: float | None) -> None:
    """Raises ConfigurationError if `concurrency` trials could hold all there is (None: unknown), so that each would
    wait for the others for ever. The CPU that reading needs is one for all of them."""
    for sequence in sequences:
        each, cards = needed(sequence)
        if cpus is not None and concurrency * each + FREE_CPUS > cpus:
            problem = (
                f"{concurrency} trials at the same time take {concurrency * each:g} CPUs and reading beside them 1, "
                f"but there are {cpus:g}"
            )
            fits = int((cpus - FREE_CPUS) / each)
            fix = f"write `concurrency: {fits}`" if fits else "use fewer"
            raise ConfigurationError("concurrency", problem, f"{fix}, or lower what a worker and an engine take")
        if gpus is not None and concurrency * cards > gpus:
            problem = f"{concurrency} trials at the same time take {concurrency * cards:g} GPUs, but there are {gpus:g}"
            raise ConfigurationError("concurrency", problem, f"write `concurrency: {max(1, int(gpus / cards))}`")


def shares(sequence: Sequence, concurrency: int, cpus: float) -> list[str]:
    """Overrides that give a trial its part of the CPUs where it would take all of them; they decide no results."""
    if concurrency == 1 or sequence.train.cpus_per_worker:
        return []
    each = math.floor(100 * (cpus - FREE_CPUS) / (concurrency * sequence.train.workers)) / 100
    return [f"train.cpus_per_worker={max(each, LEAST_CPUS)}"]


def threads(concurrency: int) -> dict[str, str]:
    """Environment of a trial's driver: trials divide the cores among them, unless somebody has said how many."""
    if concurrency == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // concurrency))}
