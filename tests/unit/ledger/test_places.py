"""Paths in a run's files: they follow a storage that is moved or copied."""

import shutil
from pathlib import Path

from continual.ledger.places import placed, stored


def test_what_lies_in_the_storage_is_relative(tmp_path: Path) -> None:
    assert stored(tmp_path / "run" / "model", tmp_path) == "run/model"
    assert stored("/elsewhere/model", tmp_path) == "/elsewhere/model"
    assert placed("run/model", tmp_path) == str(tmp_path / "run" / "model")
    assert placed("/elsewhere/model", tmp_path) == "/elsewhere/model"


def test_a_moved_and_a_copied_storage_name_their_own_paths(tmp_path: Path) -> None:
    old, new, copy = tmp_path / "old", tmp_path / "new", tmp_path / "copy"
    (old / "run" / "model").mkdir(parents=True)
    text = stored(old / "run" / "model", old)
    shutil.copytree(old, copy)
    assert placed(text, copy) == str(copy / "run" / "model")
    old.rename(new)
    assert placed(text, new) == str(new / "run" / "model")


def test_absolute_paths_of_earlier_versions_are_found_after_a_move(tmp_path: Path) -> None:
    (tmp_path / "new" / "run" / "stages" / "1-a" / "model").mkdir(parents=True)
    text = str(tmp_path / "old" / "run" / "stages" / "1-a" / "model")
    assert placed(text, tmp_path / "new") == str(tmp_path / "new" / "run" / "stages" / "1-a" / "model")
    assert placed("/gone/model", tmp_path / "new") == "/gone/model"
