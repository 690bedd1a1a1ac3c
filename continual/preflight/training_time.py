"""How long the training of each stage takes: as the run has measured it, else by a cost model and a GPU's peak."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from continual.config.schema import Sequence
from continual.ledger.events import is_record
from continual.ledger.folder import RunFolder
from continual.ledger.lines import read_last_lines
from continual.preflight.gpus import peak, read_gpus
from continual.preflight.model_facts import read_model
from continual.preflight.operations import step_operations
from continual.preflight.resources import detect_machine
from continual.preflight.sizes import read_shapes, read_sizes, trained_parameters
from continual.preflight.stages import acting, stage_view

EFFICIENCY = 0.4
"""The assumed part of a GPU's peak that training reaches. It stands for all that the cost model leaves out: memory,
what GPUs send each other, kernels that are not matrix products."""


@dataclass(frozen=True)
class TrainingTime:
    """Seconds of an optimizer step by stage, as far as known. `words` says where they are from."""

    steps: dict[int, float]
    words: str


def training_time(sequence: Sequence, run_folder: Path) -> TrainingTime:
    """Return how long the optimizer steps of every stage take. Sampling, scoring and evaluation do not count."""
    numbers = range(1, len(sequence.stages) + 1)
    took = {
        number: seconds
        for number in numbers
        if (seconds := _measured(RunFolder(run_folder).stage(number, sequence.stages[number - 1].name).metrics))
    }
    work = _operations(sequence)
    if took:
        # What is still to come takes as long per operation as the last stage that was measured.
        last = max(took)
        others = {number: took[last] * work[number] / work[last] for number in work if number not in took}
        words = "the median of the last steps that this run has made"
        return TrainingTime(took | others, f"{words}; other stages by their operations" if others else words)
    speed, words = _speed(sequence)
    if speed is None or not work:
        unknown = words if speed is None else "the model's files do not tell its sizes"
        return TrainingTime({}, f"unknown: {unknown}")
    return TrainingTime({number: operations / speed for number, operations in work.items()}, words)


def _measured(metrics: Path) -> float | None:
    """Return the median seconds of the last steps of a stage, None before the first."""
    seconds = [record.get("seconds", 0.0) for record in read_last_lines(metrics, good=is_record)]
    return median(took) if (took := [each for each in seconds if each > 0]) else None


def _operations(sequence: Sequence) -> dict[int, float]:
    """Return the operations of a step by stage, {} where the model's files do not tell its sizes."""
    folder = read_model(sequence.model)[0].folder
    shapes = read_shapes(folder) if folder else {}
    sizes = read_sizes(folder, shapes) if folder and shapes else None
    if sizes is None:
        return {}
    work, rows = {}, sequence.train.batch_rows
    for number in range(1, len(sequence.stages) + 1):
        methods, view = [method for _, method in acting(sequence, number)], stage_view(sequence, number)
        live = [rows * method.replay_ratio() for method in methods if method.frozen_models(view)]
        every = rows * (1 + sum(method.replay_ratio() for method in methods))
        work[number] = step_operations(sizes, sequence.train, every, live, trained_parameters(methods, shapes))
    return work


def _speed(sequence: Sequence) -> tuple[float | None, str]:
    """Return the assumed operations a second of all workers, and where they are from, or why they are unknown."""
    train = sequence.train
    if not train.gpus_per_worker:
        return None, "the workers train on CPUs, and no step of this run has been measured"
    if detect_machine().gpus is None:
        return None, "the GPUs are not known before the run connects"
    peaks = {gpu.name: peak(gpu.name, train.precision) for gpu in read_gpus()}
    missing = [name for name, found in peaks.items() if found is None]
    if missing or not peaks:
        return None, f"no peak is known of {missing[0]}" if missing else "the driver does not tell the GPUs"
    name, least = min(((name, found) for name, found in peaks.items() if found), key=lambda one: one[1])
    words = f"assumed at {100 * EFFICIENCY:.0f} % of {least / 1e12:g} TFLOP/s, the {train.precision} peak of {name}"
    return EFFICIENCY * least * train.workers * min(1.0, train.gpus_per_worker), words
