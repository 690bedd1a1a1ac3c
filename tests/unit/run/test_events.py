"""What MLflow is told of a run: options that tell runs apart, source, description, data."""

import json
from pathlib import Path

import pytest

from continual.run.events import NOTE, note, options
from continual.run.resume import tracker_of
from tests.kits.runs import KEPT, loaded, make_run, publish
from tests.kits.tracking import client_of


def test_options_are_those_that_were_written_and_the_usual_ones(tmp_path: Path) -> None:
    found = options(loaded(tmp_path, "a", "mitigation.0.temperature=1.3").sequence)
    assert found["mitigation.0.temperature"] == "1.3"
    assert found["mitigation.0.type"] == "context_free"
    assert found["train.learning_rate"] == "0.001"
    assert found["train.workers"] == "1"
    # Neither blank ones nor those that nobody wrote: they are alike in all runs.
    assert "null" not in found.values()
    assert "train.epsilon" not in found
    assert "mitigation.0.top_p" not in found
    assert len(found) < 30, sorted(found)


def test_the_runs_of_a_storage_land_in_one_experiment_with_source_data_and_a_note(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("one", "two"):
        run, folder = make_run(tmp_path, name, KEPT)
        assert publish(folder, uri, None).close(60) == 0
    client = MlflowClient(uri)
    [experiment] = [each for each in client.search_experiments() if each.name != "Default"]
    assert experiment.name == "continual"
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'sequence'")
    assert {each.info.run_name for each in runs} == {"one", "two"}
    for each in runs:
        tags = each.data.tags
        assert tags["mlflow.source.name"] == str(run.path)
        assert tags["mlflow.source.git.commit"] == tags["git_commit"] == "abcdef" * 6
        assert tags["mlflow.user"]
        assert tags[NOTE].startswith(f"**{each.info.run_name}**: reversal → sort, from ")
        assert "- forgetting: 0.1250" in tags[NOTE]
        assert each.inputs is not None
        assert {data.dataset.name for data in each.inputs.dataset_inputs} == {"reversal", "sort"}


def test_the_description_names_what_fell_in_the_end(tmp_path: Path) -> None:
    run, folder = make_run(tmp_path, "one", KEPT)
    summary = json.loads((folder / "summary.json").read_text())
    later = note(run.sequence, {**summary, "fell": [["sort"], ["reversal"]]}).splitlines()[-1]
    assert later == "- fell significantly, after Holm's correction: `reversal`"
    assert "fell" not in note(run.sequence, {**summary, "fell": [["sort"], []]})


@pytest.mark.parametrize("asked", [None, "own"])
def test_a_run_stays_in_the_experiment_that_it_began_in_unless_one_is_named(tmp_path: Path, asked: str | None) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    _, folder = make_run(tmp_path, "one", KEPT)
    assert publish(folder, uri, "older").close(60) == 0
    assert publish(folder, uri, asked).close(60) == 0
    client = client_of(uri)
    names = {each.name for each in client.search_experiments() if client.search_runs([each.experiment_id])}
    assert names == ({"older"} if asked is None else {"older", "own"})


def test_trackers_of_a_sequence_name_no_experiment(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, "one", KEPT)
    tracker = tracker_of(run)
    assert tracker.close(60) == 0
    [experiment] = [e for e in client_of(tracker.uri).search_experiments() if e.name != "Default"]
    assert experiment.name == "continual"
