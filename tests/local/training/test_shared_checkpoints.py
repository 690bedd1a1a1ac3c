"""Ranks that resume hash a part of a checkpoint each, and agree where they begin."""

from pathlib import Path
from typing import Any

import pytest
import torch

from continual.store import folder_damage, publish_folder
from continual.training.checkpoints import newest_for_all, step_folder
from tests.local.training.test_strategies import CPU, start

pytestmark = pytest.mark.slow
FILES = ("a", "b", "c", "d")


def begins(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Return where this rank begins, by the damaged file; none is damaged under the name of none."""
    found = {}
    for name in ("none", *FILES):
        step, path = newest_for_all(folder / name, rank, world, CPU)
        found[name] = (step, str(path))
        own = folder_damage(step_folder(folder / name, 20), rank, world)
        torch.save(own is not None, folder / f"{name}-{rank}.pt")
    torch.save(found, folder / f"found-{rank}.pt")
    return found


def test_all_ranks_begin_before_what_one_of_them_finds_damaged(tmp_path: Path) -> None:
    for name in ("none", *FILES):
        for step in (10, 20):
            (temporary := tmp_path / name / ".new").mkdir(parents=True)
            for file in FILES:
                (temporary / file).write_bytes(bytes([step]) * 100)
            publish_folder(temporary, step_folder(tmp_path / name, step), {})
        if name != "none":
            (step_folder(tmp_path / name, 20) / name).write_bytes(b"x" * 100)
    start(begins, 2, tmp_path)
    expected = {
        name: (step, str(step_folder(tmp_path / name, step)))
        for name, step in {"none": 20, **dict.fromkeys(FILES, 10)}.items()
    }
    assert [torch.load(tmp_path / f"found-{rank}.pt") for rank in range(2)] == [expected] * 2
    for name in FILES:
        assert sum(torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)) == 1, "one rank has read it"
