"""A storage that is renamed, copied or tampered with between two starts: the same result there, or a word."""

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e import command

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def half(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage whose driver was killed in the second stage; each test works on a copy."""
    storage = tmp_path_factory.mktemp("half")
    command.copy_store(tiny, storage)
    driver = command.start(storage)
    driver.wait_for(lambda: command.steps_done(storage, "2-sort") >= 9)
    driver.kill()
    assert len(command.events(storage, "stage_done")) == 1
    return storage


def resumed(storage: Path, tiny: Path) -> str:
    """Resume to the end, compare with the undisturbed run; return the output."""
    done = command.run(storage)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert command.essence(storage) == command.essence(tiny)
    for path in command.summary(storage)["checkpoints"].values():
        assert Path(path).is_relative_to(storage)
    return done.stdout


def flip(path: Path) -> None:
    """Change bytes in place, and keep size and time of modification, as `rsync -t` of other weights would."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        last = file.read()
        file.seek(-4, os.SEEK_END)
        file.write(bytes(byte ^ 1 for byte in last))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def files(folder: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_finished_run_names_its_new_place(tiny: Path, tmp_path: Path, how: str) -> None:
    """A copy leaves the first storage as it is; a renamed one makes no folder at the old place."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(tiny, old)
    assert command.run(old).returncode == 0
    shutil.copytree(old, new) if how == "copied" else old.rename(new)
    before = files(old)
    done = command.run(new)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(new / "tiny" / "stages" / "2-sort" / "model") in done.stdout
    assert str(old) not in done.stdout
    assert "note:" not in done.stdout
    assert files(old) == before
    assert old.exists() == (how == "copied")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{new / 'mlflow.db'}")
    run = command.summary(new)["mlflow_run_id"]
    assert "summary.json" in {file.path for file in client.list_artifacts(run)}


def test_a_renamed_storage_is_resumed_as_if_undisturbed(tiny: Path, half: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(half, old)
    old.rename(new)
    assert str(new / "tiny" / "stages" / "2-sort" / "model") in resumed(new, tiny)
    assert not old.exists()


@pytest.mark.parametrize("fault", ["deleted", "changed"])
def test_a_finished_stages_model_comes_from_the_store_again(tiny: Path, half: Path, tmp_path: Path, fault: str) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(half, storage)
    model = storage / "tiny" / "stages" / "1-reversal" / "model"
    shutil.rmtree(model) if fault == "deleted" else flip(model / "model.safetensors")
    assert "it was taken from the store again" in resumed(storage, tiny)


def test_a_damaged_built_model_is_made_again(tiny: Path, half: Path, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(half, storage)
    [start] = (storage / "store" / "models").iterdir()
    flip(start / "model.safetensors")
    assert f"`models` made again: model.safetensors in {start} is not what was stored there" in resumed(storage, tiny)
