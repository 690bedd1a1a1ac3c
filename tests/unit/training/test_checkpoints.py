"""A damaged checkpoint is noticed, whatever the damage, and the newest valid one is used."""

from pathlib import Path

import pytest

from continual.store import folder_damage, publish_folder
from continual.training.checkpoints import newest_valid, prune, step_folder, steps_found


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
