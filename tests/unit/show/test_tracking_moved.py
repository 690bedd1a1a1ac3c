"""A storage that was moved or copied: MLflow finds its runs' artifacts there, and leaves the old place alone."""

import shutil
from pathlib import Path

import pytest

from continual.show.tracking import Tracker
from tests.kits.runs import KEPT, make_run, publish
from tests.kits.tracking import client_of


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_artifacts_follow_the_storage(tmp_path: Path, how: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    _, folder = make_run(old, "one", KEPT)
    tracker = publish(folder, f"sqlite:///{old}/mlflow.db", None)
    assert tracker.close(60) == 0
    (run_id,) = {str(tracker.run_id("sequence"))}
    before = {path.relative_to(old) for path in old.rglob("*") if "mlartifacts" in path.parts}
    if how == "moved":
        old.rename(new)
    else:
        shutil.copytree(old, new)

    _, second = make_run(new, "two", KEPT)
    uri = f"sqlite:///{new}/mlflow.db"
    assert publish(second, uri, None).close(60) == 0
    client = client_of(uri)
    [found] = [run for run in client.search_runs([client.get_run(run_id).info.experiment_id], "tags.kind = 'sequence'")
               if run.info.run_id != run_id]  # fmt: skip
    for run in (client.get_run(run_id), found):
        assert run.info.artifact_uri.startswith((new / "mlartifacts").as_uri())
        assert {"summary.json", "config.yaml"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    assert old.exists() == (how == "copied")
    if how == "copied":
        assert {path.relative_to(old) for path in old.rglob("*") if "mlartifacts" in path.parts} == before
        assert (
            client_of(f"sqlite:///{old}/mlflow.db")
            .get_run(run_id)
            .info.artifact_uri.startswith((old / "mlartifacts").as_uri())
        )


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_run_that_moved_with_its_tracker_has_nothing_to_send_again(tmp_path: Path, how: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    _, folder = make_run(old, "one", KEPT)
    assert publish(folder, f"sqlite:///{old}/mlflow.db", None).close(60) == 0
    old.rename(new) if how == "moved" else shutil.copytree(old, new)
    tracker = Tracker(new / "one" / "ledger.jsonl", f"sqlite:///{new}/mlflow.db", None)
    assert tracker.waiting == 0
    assert tracker.close(60) == 0
    found = client_of(f"sqlite:///{new}/mlflow.db").get_run(str(tracker.run_id("sequence")))
    assert found.info.artifact_uri.startswith((new / "mlartifacts").as_uri())
    elsewhere = Tracker(new / "one" / "ledger.jsonl", f"sqlite:///{tmp_path}/other.db", None)
    assert elsewhere.close(60) == 0
    assert client_of(f"sqlite:///{tmp_path}/other.db").search_experiments(), "another tracker gets all of it"
