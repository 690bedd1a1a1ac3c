"""Ctrl-C in training and in the evaluation after it: exit code 130, a clean state, and the same command goes on."""

import shutil
from pathlib import Path

import pytest

from tests.e2e import command

pytestmark = pytest.mark.slow


def statuses(storage: Path) -> set[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "tiny"])
    return {run.info.status for run in runs}


def test_ctrl_c_in_training_then_in_evaluation(tiny: Path, tmp_path: Path) -> None:
    """`fit()` must not have left a SIGINT handler of its own behind when the evaluation comes."""
    shutil.copytree(tiny / "store", tmp_path / "store")
    for scores in (tmp_path / "store" / "scores").iterdir():
        shutil.rmtree(scores)
    driver = command.start(tmp_path, "train.checkpoint_every=1000")
    driver.wait_for(lambda: command.steps_done(tmp_path, "1-reversal") >= 5)
    assert driver.interrupt() == 130
    text = driver.output.read_text()
    assert "the same command goes on" in text and "Traceback" not in text
    checkpoints = [p.name for p in (tmp_path / "tiny" / "stages" / "1-reversal" / "checkpoints").glob("step-*")]
    assert checkpoints and checkpoints != ["step-00000024"], "the workers publish a checkpoint before they stop"
    assert "RUNNING" not in statuses(tmp_path) and "KILLED" in statuses(tmp_path)

    again = command.start(tmp_path, "train.checkpoint_every=1000")
    export = tmp_path / "tiny" / "stages" / "1-reversal" / "model"
    again.wait_for(lambda: export.exists() and "1 reversal: evaluate" in (tmp_path / "tiny" / "log.txt").read_text())
    assert again.interrupt() == 130
    assert "Traceback" not in again.output.read_text()
    assert command.events(tmp_path, "stage_done") == []

    assert command.run(tmp_path).returncode == 0
    assert command.essence(tmp_path) == command.essence(tiny)
    assert statuses(tmp_path) == {"FINISHED"}
