"""What a training worker takes: CPUs, logits. Imports neither torch nor ray: the checks before a start use it."""

from continual.config.schema import Train

FREE_CPUS = 1.0
"""CPUs left for Ray Data in addition to workers and engines: without them it would never read a row."""

READING_CPUS = 0.5
"""CPUs left for Ray Data where workers that wait share a small machine with engines or the reading of a source: tasks
that read ask for a tenth."""

LEAST_CPUS = 0.05
"""Reserved by a worker at least, where many share few."""
READ_CPUS = 0.1
"""Reserved by a task that reads some steps' rows."""

LEAST_POSITIONS = 512
LOGIT_BYTES = 256 * 2**20
"""Float32 logits that exist at one time in training, unless those of LEAST_POSITIONS positions are more."""
PART_LOGITS = 2**24
"""Logits of the positions for which a loss has further values per logit at one time, on a GPU."""


def chunk_positions(train: Train, vocabulary: int) -> int:
    """Return the positions whose logits exist at one time: as configured, else by the size of the vocabulary."""
    return train.loss_chunk_tokens or max(LEAST_POSITIONS, LOGIT_BYTES // (4 * vocabulary))


def worker_cpus(train: Train, cpus: float) -> float:
    """Return the CPUs that a worker reserves: as configured, else an equal part of `cpus` less FREE_CPUS."""
    if train.cpus_per_worker:
        return train.cpus_per_worker
    part = max(cpus - FREE_CPUS, 0.5) / train.workers
    return float(int(part)) if part >= 1 else round(max(part, LEAST_CPUS), 2)
