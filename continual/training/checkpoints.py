"""Checkpoints inside a stage: whole or absent, verified before use, newest valid first.

They stand beside Ray Train's own, which would hand a damaged checkpoint to every restart until its failures run out.
"""

import shutil
from pathlib import Path

from continual.ledger.folder import step_name, steps_in
from continual.store import folder_damage


def step_folder(folder: Path, step: int) -> Path:
    return folder / step_name(step)


def steps_found(folder: Path) -> list[int]:
    """Steps with a published checkpoint (valid or not), newest first."""
    return sorted((step for step, path in steps_in(folder).items() if path.is_dir()), reverse=True)


def newest_valid(folder: Path) -> tuple[int, Path | None]:
    """Step and folder of the newest checkpoint that is whole; (0, None) when there is none.

    The data configuration and the training loop both ask this function where to begin, so they agree.
    """
    for step in steps_found(folder):
        path = step_folder(folder, step)
        if folder_damage(path) is None:
            return step, path
    return 0, None


def prune(folder: Path, keep: int, newest: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints.

    `newest`: the step just published. What stands behind it was damaged when the stage resumed, and must not count.
    """
    found = steps_found(folder)
    behind = [step for step in found if newest is not None and step > newest]
    for step in behind + [step for step in found if step not in behind][keep:]:
        shutil.rmtree(step_folder(folder, step), ignore_errors=True)
