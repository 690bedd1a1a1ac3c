"""Paths in a run's files: they follow a storage that is moved or copied."""

import shutil
from pathlib import Path

import pytest

from continual.ledger.places import placed, placed_model, stored


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


def test_a_copy_with_absolute_paths_uses_its_own_while_the_old_one_is_there(tmp_path: Path) -> None:
    ends = ("run/stages/2-b/model", f"store/models/{'0a' * 10}")
    for storage in ("old", "copy"):
        for end in ends:
            (tmp_path / storage / end).mkdir(parents=True)
    for end in ends:
        assert placed(str(tmp_path / "old" / end), tmp_path / "copy") == str(tmp_path / "copy" / end)
        assert placed(str(tmp_path / "old" / end), tmp_path / "old") == str(tmp_path / "old" / end)


def test_a_folder_of_the_users_is_not_taken_for_one_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "storage" / "models" / "mine").mkdir(parents=True)
    assert placed("/gone/models/mine", tmp_path / "storage") == "/gone/models/mine"


@pytest.mark.parametrize("linked", ["storage", "store"])
def test_a_storage_or_a_store_behind_a_link_is_relative_too(tmp_path: Path, linked: str) -> None:
    """The store's root follows links, the run's folder does not."""
    real, storage = tmp_path / "disk", tmp_path / "runs"
    real.mkdir()
    if linked == "storage":
        storage.symlink_to(real)
        (real / "store").mkdir()
    else:
        storage.mkdir()
        (storage / "store").symlink_to(real)
    model = (storage / "store").resolve() / "models" / "x"
    assert stored(model, storage) == "store/models/x"
    assert Path(placed("store/models/x", storage)).resolve() == model
    assert stored(storage / "run" / "stages" / "1-a", storage) == "run/stages/1-a"


@pytest.mark.parametrize("text", ["one/stages/1-a/model", "/old/one/stages/1-a/model"])
def test_the_models_of_a_run_follow_its_folder(tmp_path: Path, text: str) -> None:
    assert placed_model(text, tmp_path / "two") == str(tmp_path / "two" / "stages" / "1-a" / "model")
    assert placed_model("store/models/x", tmp_path / "two") == str(tmp_path / "store" / "models" / "x")
