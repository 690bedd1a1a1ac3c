"""A damaged checkpoint is noticed, whatever the damage, and the newest valid one is used."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from continual.errors import ContinualError
from continual.store import folder_damage, publish_folder
from continual.training.checkpoints import newest_valid, prune, read_states, step_folder, steps_found
from continual.training.random_state import random_state, set_random_state


def put(folder: Path, step: int) -> Path:
    temporary = folder / ".new"
    temporary.mkdir(parents=True)
    (temporary / "weights.bin").write_bytes(bytes([step]) * 1000)
    (temporary / "sub").mkdir()
    (temporary / "sub" / "rank.bin").write_bytes(b"x")
    publish_folder(temporary, step_folder(folder, step), {"step": step})
    return step_folder(folder, step)


def truncate(path: Path) -> None:
    (path / "weights.bin").write_bytes(b"short")


def flip(path: Path) -> None:
    content = bytearray((path / "weights.bin").read_bytes())
    content[500] ^= 1
    (path / "weights.bin").write_bytes(content)


def lose(path: Path) -> None:
    (path / "sub" / "rank.bin").unlink()


def no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def half_manifest(path: Path) -> None:
    (path / "manifest.json").write_text((path / "manifest.json").read_text()[:40])


@pytest.mark.parametrize("damage", [truncate, flip, lose, no_manifest, half_manifest])
def test_damage_sends_back_to_the_one_before(tmp_path: Path, damage: object) -> None:
    put(tmp_path, 10)
    newest = put(tmp_path, 20)
    assert newest_valid(tmp_path) == (20, newest)
    damage(newest)  # type: ignore[operator]
    assert folder_damage(newest) is not None
    assert newest_valid(tmp_path)[0] == 10


@pytest.mark.parametrize("shares", [2, 3])
@pytest.mark.parametrize("damage", [truncate, flip, lose, no_manifest, half_manifest])
def test_those_who_share_the_files_find_together_what_one_finds(tmp_path: Path, damage: object, shares: int) -> None:
    newest = put(tmp_path, 20)
    assert [folder_damage(newest, share, shares) for share in range(shares)] == [None] * shares
    damage(newest)  # type: ignore[operator]
    found = [folder_damage(newest, share, shares) for share in range(shares)]
    assert folder_damage(newest) in found


def test_nothing_valid_means_from_the_beginning(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "none") == (0, None)
    truncate(put(tmp_path, 5))
    assert newest_valid(tmp_path) == (0, None)


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-00000030.tmp").mkdir(parents=True)
    assert steps_found(tmp_path) == []


def test_publishing_again_replaces_and_pruning_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 3):
        put(tmp_path, step)
    prune(tmp_path, 2)
    assert steps_found(tmp_path) == [3, 2]


def test_foreign_entries_beside_checkpoints_are_ignored_and_kept(tmp_path: Path) -> None:
    """A backup, a copy under another spelling, a file and a link: none is resumed from, counted or deleted."""
    own = put(tmp_path, 4)
    shutil.copytree(own, tmp_path / "step-00000004.bak")
    shutil.copytree(own, tmp_path / "step-9")
    (tmp_path / "step-00000007").write_text("not a folder")
    (tmp_path / "step-00000008").symlink_to(own)
    assert steps_found(tmp_path) == [4]
    assert newest_valid(tmp_path) == (4, own)
    put(tmp_path, 5)
    prune(tmp_path, 2, 5)
    assert steps_found(tmp_path) == [5, 4]
    left = {"step-00000004.bak", "step-9", "step-00000007", "step-00000008", "step-00000004", "step-00000005"}
    assert {path.name for path in tmp_path.iterdir()} == left


class Planted:
    """Unpickled, it creates a file: what a stranger could put into a checkpoint."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"control": {"0": [value]}}])
def test_a_planted_pickle_is_not_run(tmp_path: Path, wrap: Callable[[object], object]) -> None:
    torch.save(wrap(Planted(tmp_path / "ran")), tmp_path / "control.pt")
    with pytest.raises(ContinualError, match=r"control\.pt holds more than tensors, arrays and plain values"):
        read_states(tmp_path / "control.pt")
    assert not (tmp_path / "ran").exists()


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "random.pt")
    drawn = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    set_random_state(read_states(tmp_path / "random.pt"))
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == drawn
    control = {"coefficients": {"a": 0.5}, "control": {"0": {"n": np.float64(2.0), "seen": [1, (2, "x")], "on": True}}}
    torch.save(control, tmp_path / "control.pt")
    assert read_states(tmp_path / "control.pt") == control
