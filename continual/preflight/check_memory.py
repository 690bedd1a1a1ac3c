"""Whether the training fits the GPUs, or the machine: what a worker needs, by stage, and what would make it fit."""

import os
from pathlib import Path

from continual.config.schema import Sequence, Train
from continual.errors import ConfigurationError
from continual.models.attention import AUTO, BY_DOCUMENT, UNMASKED
from continual.preflight.attention import training_attention
from continual.preflight.gpus import read_gpus
from continual.preflight.memory import Memory, Sizes, memory
from continual.preflight.model_facts import read_model
from continual.preflight.resources import detect_machine
from continual.preflight.sizes import Shapes, may_draw, read_shapes, read_sizes, trained_parameters
from continual.preflight.stages import acting, stage_view

EXACT = 0.9
"""The model of costs is exact to a tenth: what is predicted to need this part of a GPU's memory may fit or not."""
CONTAINERS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit is told (cgroups 2 and 1); `max` is none."""
FIXES: tuple[tuple[str, object], ...] = (
    ("activation_checkpointing", True), ("precision", "bfloat16"), ("strategy", "fsdp"), ("micro_rows", 1),
)  # fmt: skip
"""What is tried to make it fit, one after the other and together, the cheapest first."""


def needed_memory(sequence: Sequence, train: Train | None = None) -> Memory | None:
    """Return what a worker needs in the stage that needs most, None if the model's files do not tell its sizes.

    `train` stands for the sequence's own options.
    """
    folder = read_model(sequence.model)[0].folder
    shapes = read_shapes(folder) if folder else {}
    sizes = read_sizes(folder, shapes) if folder and shapes else None
    if folder is None or sizes is None:
        return None
    options = train or sequence.train
    numbers = range(1, len(sequence.stages) + 1)
    stages = [_stage(sequence, options, number, folder, sizes, shapes) for number in numbers]
    return max(stages, key=lambda stage: stage.total)


def _stage(sequence: Sequence, train: Train, number: int, folder: Path, sizes: Sizes, shapes: Shapes) -> Memory:
    view, teachers = stage_view(sequence, number), set()
    methods = [mitigation for _, mitigation in acting(sequence, number)]
    for method in methods:
        teachers |= method.frozen_models(view)
    live = bool(teachers)
    adapting = [method for method in methods if method.overrides("adapt")]
    if len(adapting) == 1 and adapting[0].overrides("unadapted") and not may_draw(folder, adapting[0].model_dump()):
        teachers -= {"stage_start"} | ({"start"} if number == 1 else set())
    rows = -(-train.batch_rows // train.workers)
    return memory(
        sizes,
        train,
        min(train.micro_rows or rows, rows),
        teachers=len(teachers),
        live=live,
        adapter=trained_parameters(methods, shapes),
        penalty_copies=sum(method.penalty_copies(view) for method in methods),
        masked=_masked(sequence, train, folder),
    )


def _masked(sequence: Sequence, train: Train, folder: Path) -> bool:
    """Return whether attention makes masks of tokens x tokens."""
    wanted = sequence.model.attention
    if not train.gpus_per_worker:  # a plan imports no transformers, which alone knows the few classes that need a mask
        return train.compile or wanted not in (AUTO, BY_DOCUMENT)
    return training_attention(sequence.model_copy(update={"train": train}), folder).name not in UNMASKED


def check_memory(sequence: Sequence) -> list[str]:
    """Return notes. Raise ConfigurationError if a worker needs more memory than it gets on this machine."""
    train, here = sequence.train, detect_machine()
    on_gpus = train.gpus_per_worker > 0
    if (here.gpus if on_gpus else here.cpus) is None:
        return []
    whole, needs = gpu_bytes() if on_gpus else host_bytes(), needed_memory(sequence)
    if whole is None or needs is None:
        return []
    room = whole * min(1.0, train.gpus_per_worker) if on_gpus else whole / train.workers
    if needs.total <= EXACT * room:
        return []
    said = f"a worker needs about {gib(needs.total)} of {'a GPU' if on_gpus else 'the machine'}'s memory, "
    many = not on_gpus and train.workers > 1
    said += f"and each of {train.workers} gets {gib(room)}" if many else f"of which it has {gib(room)}"
    if needs.total * EXACT <= room:
        return [f"{said}: it may run out; {_fix(sequence, room)}"]
    raise ConfigurationError("train", f"{said} ({largest(needs)})", _fix(sequence, room))


def _fix(sequence: Sequence, room: float) -> str:
    """Return which options make it fit, as far as some do."""
    train = sequence.train
    changes: dict[str, object] = {}
    for key, value in FIXES:
        if key == "strategy" and (train.workers == 1 or train.strategy != "ddp"):
            continue
        if getattr(train, key) != value:
            changes[key] = value
            needs = needed_memory(sequence, train.model_copy(update=changes))
            if needs is not None and needs.total <= EXACT * room:
                return "write " + ", ".join(
                    f"`train.{name}: {str(option).lower()}`" for name, option in changes.items()
                )
    more = "more workers with `train.strategy: fsdp`, " if train.gpus_per_worker else ""
    return f"take {more}a smaller `train.row_tokens`, or `{{type: lora}}`"


def largest(needs: Memory) -> str:
    """Return what takes most of it, in words."""
    parts = sorted(needs.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {gib(size)}" for name, size in parts if size > 0.02 * needs.total)


def gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"


def host_bytes() -> int | None:
    """Return the memory of this machine or of its container, whichever is less; None if neither is told."""
    try:
        machine = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (ValueError, OSError):
        machine = []
    limits = [file.read_text() for file in CONTAINERS if file.is_file()]
    return min([*machine, *(int(limit) for limit in limits if limit.strip().isdecimal())], default=None)


def gpu_bytes() -> int | None:
    """Return the memory of the smallest GPU that CUDA would show, None if the driver does not tell."""
    return min((gpu.memory for gpu in read_gpus()), default=None)
