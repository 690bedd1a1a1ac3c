"""Ctrl-C in training and in the evaluation after it: exit code 130, a clean state, and the same command resumes."""

from pathlib import Path

import pytest

from tests.e2e import command

pytestmark = pytest.mark.slow


def statuses(storage: Path) -> set[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "continual"])
    return {run.info.status for run in runs}


LONG = ("stages.0.steps=150", "train.checkpoint_every=1000", "evaluate.every=null")
"""Long enough to be interrupted in the middle, and no checkpoint but the one that the interrupt asks for."""


def test_ctrl_c_in_training_then_in_evaluation(tiny: Path, tmp_path: Path) -> None:
    """`fit()` must not have left a SIGINT handler of its own behind when the evaluation comes."""
    command.copy_store(tiny, tmp_path)
    driver = command.start(tmp_path, *LONG)
    driver.wait_for(lambda: command.steps_done(tmp_path, "1-reversal") >= 5)
    assert driver.interrupt() == 130
    text = driver.output.read_text()
    assert "run the same command again to resume" in text
    assert "Traceback" not in text
    stage = tmp_path / "tiny" / "stages" / "1-reversal"
    stopped = command.steps_done(tmp_path, "1-reversal")
    assert stopped < 150
    assert [p.name for p in (stage / "checkpoints").glob("step-*")] == [f"step-{stopped:08d}"]
    assert "RUNNING" not in statuses(tmp_path)
    assert "KILLED" in statuses(tmp_path)
    before = command.records(tmp_path, "1-reversal")

    again = command.start(tmp_path, *LONG)
    again.wait_for((stage / "model").exists)
    # The model is scored next; its scores are not in the store, since 150 steps were never trained before.
    again.wait_for(lambda: "train: 150" in again.output.read_text())
    assert again.interrupt() == 130
    assert "Traceback" not in again.output.read_text()
    assert command.events(tmp_path, "stage_done") == []

    assert command.run(tmp_path, *LONG).returncode == 0
    steps = command.records(tmp_path, "1-reversal")
    assert [r["step"] for r in steps] == list(range(1, 151))
    assert steps[:stopped] == before, "what was done before the interrupt is not done again"
    assert statuses(tmp_path) == {"FINISHED"}
