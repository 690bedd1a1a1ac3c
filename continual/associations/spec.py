"""Define the YAML of associations and make a sweep of it. Imports neither torch nor ray."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from continual.config.load import Loaded, load_sequence
from continual.config.measured import Measured
from continual.config.schema import LONGEST_NAME, NAME, Strict
from continual.errors import ConfigurationError, nearest
from continual.sweep.spec import Ablation, Dimension, LoadedAblation, base_of, load_about
from continual.sweep.sweep import Sweep, prepare

SWEPT = "stages"
"""The key of the base sequence that differs between the runs: each has one of the stages alone."""


class Associate(Strict):
    """A base sequence, each of whose stages is learned alone, and what is measured before and after."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME, description="names the folder of the results")
    sequence: str = Field(description="YAML of the sequence whose stages are the tasks, relative to this file")
    upstream: str = Field(description="the text, or old task, of the sequence whose documents may be forgotten")
    probes: int = Field(30, ge=1, description="documents from which the forecast of a task's forgetting is tried out")
    draws: int = Field(10, ge=1, description="choices of these documents that the forecast is averaged over")
    concurrency: int = Field(1, ge=1, description="tasks that are learned at the same time")


@dataclass(frozen=True)
class LoadedAssociate:
    """Valid associations, their base sequence, and the sweep that measures them."""

    associate: Associate
    base: Loaded
    sweep: LoadedAblation


def load_associate(path: str | Path, arguments: Sequence[str] = ()) -> LoadedAssociate:
    """Read and validate the YAML and its base sequence; pass other `key=value` arguments on to the sequence.

    Raises ConfigurationError with file, dotted key and fix.
    """
    associate, rest = load_about(Associate, path, arguments)
    file, folder = str(path), Path(os.path.abspath(path)).parent  # noqa: PTH100  links stay, as for a sequence
    base_file = base_of(folder, associate.sequence)
    base = load_sequence(base_file, rest)
    _check(associate, base, file)
    stages = {stage["name"]: [stage] for stage in base.sequence.model_dump(mode="json")["stages"]}
    ablation = Ablation(
        name=associate.name,
        sequence=associate.sequence,
        space={SWEPT: Dimension.model_validate({"named": stages})},
        metric=[associate.upstream],
        concurrency=associate.concurrency,
    )
    return LoadedAssociate(associate, base, LoadedAblation(ablation, file, folder, base_file, rest))


def prepare_sweep(loaded: LoadedAssociate, fresh: bool = False) -> Sweep:
    """Check all tasks before a start. Raises ConfigurationError, for a stage with its key in the base sequence."""
    try:
        return prepare(loaded.sweep, fresh)
    except ConfigurationError as error:
        inside = f"space.{SWEPT}"
        if not error.key.startswith(inside):
            raise
        # In a run of its own every stage is the first one.
        key = f"{SWEPT}{error.key.removeprefix(inside)}"
        raise ConfigurationError(key, error.problem, error.fix, loaded.base.file) from error


def _check(associate: Associate, base: Loaded, file: str) -> None:
    stages = base.sequence.stages
    if len(stages) < 2:
        problem = f"{base.file} has one stage, and every stage is a task of the associations"
        raise ConfigurationError("sequence", problem, "list at least two stages", file)
    evaluated = Measured.of(base.sequence)
    known = [*evaluated.old_tasks, *(text.name for text in base.sequence.evaluate.texts)]
    if associate.upstream not in known:
        near = nearest(associate.upstream, known)
        fix = f"did you mean `{near}`?" if near else "add it to the sequence's `evaluate.texts`"
        raise ConfigurationError(
            "upstream", f"{base.file} measures no text or old task `{associate.upstream}`", fix, file
        )
