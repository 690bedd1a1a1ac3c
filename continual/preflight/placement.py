"""What a sequence leaves to the hardware: whether its evaluation gets GPUs. Driver, checks and plan ask the same."""

from typing import NamedTuple

from continual.config.measured import evaluation_tasks
from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.delivery import check_placement


class Placed(NamedTuple):
    """A sequence whose `evaluate.gpus` is a number, and why it is that one; "" if nothing was chosen."""

    sequence: Sequence
    why: str


def placed(sequence: Sequence, cpus: float | None, gpus: float | None) -> Placed:
    """Return the sequence as it runs on a machine or cluster with so many CPUs and GPUs (None: unknown).

    Each evaluating process gets a GPU where that fits: between the stages, when workers and engines may have ended, or
    with `evaluate.every` beside the training.
    """
    evaluate = sequence.evaluate
    if evaluate.gpus is not None or not evaluation_tasks(sequence) + evaluate.texts:
        return Placed(sequence, "")
    if gpus is None:
        return Placed(_with(sequence, 0.0), "on GPUs if some are free when the run connects")
    if not gpus:
        return Placed(_with(sequence, 0.0), "")
    chosen = _with(sequence, 1.0)
    try:
        check_placement(chosen, cpus, gpus)
    except ConfigurationError as error:
        return Placed(_with(sequence, 0.0), f"with a GPU, {error.problem}")
    return Placed(chosen, "a GPU is free for it")


def _with(sequence: Sequence, gpus: float) -> Sequence:
    return sequence.model_copy(update={"evaluate": sequence.evaluate.model_copy(update={"gpus": gpus})})
