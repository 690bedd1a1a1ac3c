"""Checkpoints inside a stage: whole or absent, verified before use, newest valid first.

They stand beside Ray Train's own, which would hand a damaged checkpoint to every restart until its failures run out.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from continual.store import hash_file, write_atomic

STATE = "state.json"
MANIFEST = "manifest.json"


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def steps_found(folder: Path) -> list[int]:
    """Steps with a published checkpoint (valid or not), newest first."""
    found = [p for p in folder.glob("step-*") if p.is_dir()] if folder.is_dir() else []
    return sorted((int(p.name.removeprefix("step-")) for p in found), reverse=True)


def publish(temporary: Path, final: Path, facts: dict[str, Any]) -> None:
    """Give a filled temporary folder its manifest and its name. Called by one rank after all have written."""
    files = {
        str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(temporary.rglob("*"))
        if path.is_file()
    }
    write_atomic(temporary / MANIFEST, json.dumps({"files": files, **facts}))
    if final.exists():
        shutil.rmtree(final)
    temporary.replace(final)


def problem(folder: Path) -> str | None:
    """What is wrong with a published folder, or None if every file is as the manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, facts in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != facts["bytes"] or hash_file(path) != facts["sha256"]:
                return f"{name} is missing or damaged"
    except (OSError, ValueError, KeyError) as error:
        return f"{MANIFEST} is missing or damaged ({type(error).__name__})"
    return None


def newest_valid(folder: Path) -> tuple[int, Path | None]:
    """Step and folder of the newest checkpoint that is whole; (0, None) when there is none.

    The data configuration and the training loop both ask this function where to begin, so they agree.
    """
    for step in steps_found(folder):
        path = step_folder(folder, step)
        if problem(path) is None:
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
