"""A tracker that is down delays no step; its records wait in the run's files and follow with the same command."""

from pathlib import Path

import pytest

from tests.e2e import command

pytestmark = pytest.mark.slow


def test_records_follow_when_the_tracker_is_back(tiny: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    command.copy_store(tiny, tmp_path)
    away = command.run(tmp_path, "track.uri=http://127.0.0.1:9")
    assert away.returncode == 0, away.stdout[-3000:] + away.stderr[-3000:]
    assert "records wait for the tracker http://127.0.0.1:9" in away.stdout
    assert command.summary(tmp_path)["mlflow_run_id"] is None
    assert command.essence(tmp_path) == command.essence(tiny)

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert command.run(tmp_path, f"track.uri={uri}").returncode == 0
    client = MlflowClient(uri)
    found = client.get_run(command.summary(tmp_path)["mlflow_run_id"])
    assert found.info.status == "FINISHED"
    assert found.data.metrics["forgetting"] == pytest.approx(command.summary(tmp_path)["forgetting"])
    assert len(client.search_runs([found.info.experiment_id])) == 3
