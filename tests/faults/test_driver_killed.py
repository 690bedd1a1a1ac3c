"""kill -9 of the driver, then the same command: rows, losses, scores and weights equal an undisturbed run's."""

import random
from pathlib import Path

import pytest

from tests.e2e import command

SEED = 20261128
"""Decides after which step the kill at a random moment comes."""


def resumed(tiny: Path, storage: Path) -> None:
    """Resume and compare with the undisturbed run; no token may have been sampled twice."""
    finished = command.run(storage)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert command.essence(storage) == command.essence(tiny)
    assert command.events(storage, "reused") == []
    found = command.summary(storage)
    assert found["generated_tokens"] + found["reused_tokens"] == command.summary(tiny)["generated_tokens"]
    assert found["trained_tokens"] == command.summary(tiny)["trained_tokens"]


def test_killed_in_training(tiny: Path, tmp_path: Path) -> None:
    """Between two checkpoints, so that steps behind the newest are done again; replay comes from the store."""
    command.copy_store(tiny, tmp_path)
    driver = command.start(tmp_path)
    driver.wait_for(lambda: command.steps_done(tmp_path, "2-sort") >= 9)
    driver.kill()
    assert len(command.events(tmp_path, "stage_done")) == 1
    resumed(tiny, tmp_path)
    assert command.summary(tmp_path)["generated_tokens"] == 0


def shards(storage: Path) -> int:
    return len(list((storage / "store" / "samples").glob("*/shard-*.json")))


@pytest.mark.slow
def test_killed_in_every_phase(tiny: Path, tmp_path: Path) -> None:
    """In the first stage's training, in sampling, in training at a random moment, in evaluation, all in one run, which
    then ends as if undisturbed: nothing sampled twice, one tree in the tracker."""
    first = command.start(tmp_path)
    first.wait_for(lambda: command.steps_done(tmp_path, "1-reversal") >= 3)
    first.kill()
    assert command.events(tmp_path, "stage_done") == []

    driver = command.start(tmp_path)
    driver.wait_for(lambda: shards(tmp_path) >= 1)
    driver.kill()
    made = shards(tmp_path)
    assert 1 <= made <= 4, "some shards are there, and the missing ones alone are sampled"

    again = command.start(tmp_path)
    again.wait_for(lambda: command.steps_done(tmp_path, "2-sort") >= random.Random(SEED).randint(1, 12))
    again.kill()
    # Out of the second stage's evaluation: its model is there, its scores are not.
    export = tmp_path / "tiny" / "stages" / "2-sort" / "model"
    assert not export.exists()
    last = command.start(tmp_path)
    last.wait_for(export.exists)
    last.kill()
    assert len(command.events(tmp_path, "stage_done")) == 1
    resumed(tiny, tmp_path)
    assert command.summary(tmp_path)["generated_tokens"] == command.summary(tiny)["generated_tokens"]
    check_tracker(tmp_path)


def check_tracker(storage: Path) -> None:
    """One tree of three runs, none left open, every step in both stages."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "continual"])
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.data.tags.get("stage"):
            steps = [m.step for m in client.get_metric_history(run.info.run_id, "loss/task")]
            assert sorted(set(steps)) == list(range(1, 25))
