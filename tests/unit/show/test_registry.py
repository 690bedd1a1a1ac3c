"""Stages in MLflow's model registry: versions, tags and aliases, against SQLite and its own API."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.errors import ConfigurationError
from continual.ledger.folder import RunFolder
from continual.show.tracking import Tracker
from continual.show.tracking.registry import LEAST_FORGETTING, VERSION_KEY, least_forgetting
from tests.kits.runs import KEPT, LOST, TINY, make_run, publish, stderr


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Two runs that register into one model, the forgetful one last."""
    storage = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{storage}/mlflow.db"
    for name, scores, override in (("kept", KEPT, "seed=3"), ("lost", LOST, "mitigation=[]")):
        _, folder = make_run(storage, name, scores, "track.register=tiny-models", override)
        assert publish(folder, uri, "arms").close(60) == 0
    return uri, storage


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def versions_of(uri: str, name: str = "tiny-models") -> dict[int, Any]:
    return {int(version.version): version for version in client_of(uri).search_model_versions(f"name = '{name}'")}


def test_every_stage_is_a_version_with_scores_and_data(arms: tuple[str, Path]) -> None:
    uri, storage = arms
    versions = versions_of(uri)
    assert sorted(versions) == [1, 2, 3, 4]
    assert [Path(versions[n].source) for n in (1, 2, 3, 4)] == [
        storage / run / "stages" / stage / "model" for run in ("kept", "lost") for stage in ("1-reversal", "2-sort")
    ]
    tags = versions[2].tags
    expected = {
        "kind": "stage", "sequence": "kept", "mitigation": "context_free", "seed": "3", "stage": "2",
        "stage_name": "sort", "model": "m2", "data/task": "rows2", "strategy": "ddp", "world_size": "1",
        "score/reversal": "0.875", "score/sort": "0.75", "forgetting": "0.125", "average_score": "0.8125",
        "stderr/score/sort": repr(stderr(0.75)),
    }  # fmt: skip
    assert {key: tags.get(key) for key in expected} == expected
    assert "forgetting" not in versions[1].tags
    assert versions[1].tags["mitigation"] == "none"
    run = client_of(uri).get_run(versions[2].run_id)
    assert run.data.tags["stage"] == "2"
    assert run.info.run_name == "kept/2-sort"


def test_aliases_find_the_newest_and_the_one_that_forgot_least(arms: tuple[str, Path]) -> None:
    import mlflow

    uri, _ = arms
    client = client_of(uri)
    assert client.get_model_version_by_alias("tiny-models", "latest").version == 4
    assert client.get_model_version_by_alias("tiny-models", LEAST_FORGETTING).version == 2
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        folders = {name: Path(mlflow.artifacts.download_artifacts(f"models:/tiny-models{name}"))
                   for name in ("@latest", "/latest", f"@{LEAST_FORGETTING}", "/1")}  # fmt: skip
    finally:
        mlflow.set_tracking_uri(before)
    assert {name: json.loads((folder / "config.json").read_text()) for name, folder in folders.items()} == {
        "@latest": {"stage": 2, "run": "lost"},
        "/latest": {"stage": 2, "run": "lost"},
        f"@{LEAST_FORGETTING}": {"stage": 2, "run": "kept"},
        "/1": {"stage": 1, "run": "kept"},
    }


def test_what_is_sent_twice_is_one_version(arms: tuple[str, Path]) -> None:
    """A kill after the sending and before the saving: all is sent again."""
    uri, storage = arms
    files = RunFolder(storage / "lost")
    state = json.loads(files.tracker_state.read_text())
    files.tracker_state.write_text(json.dumps({**state, "events": 0, "steps": {}, "runs": {}}))
    assert Tracker(files.ledger, uri, "arms").close(60) == 0
    assert sorted(versions_of(uri)) == [1, 2, 3, 4]
    assert len({version.tags[VERSION_KEY] for version in versions_of(uri).values()}) == 4


def test_versions_follow_when_the_tracker_is_back(arms: tuple[str, Path], tmp_path: Path) -> None:
    _, folder = make_run(tmp_path, "late", KEPT, "track.register=late-models")
    tracker = publish(folder, "http://127.0.0.1:1", "late")
    assert tracker.close(3) > 0
    uri, _ = arms
    assert Tracker(RunFolder(folder).ledger, uri, "late").close(60) == 0
    assert sorted(versions_of(uri, "late-models")) == [1, 2]
    assert client_of(uri).get_model_version_by_alias("late-models", LEAST_FORGETTING).version == 2


def test_a_model_that_is_gone_stops_nothing(arms: tuple[str, Path], tmp_path: Path) -> None:
    uri, _ = arms
    _, folder = make_run(tmp_path, "gone", KEPT, "track.register=gone-models")
    for model in folder.glob("stages/*/model"):
        shutil.rmtree(model)
    assert publish(folder, uri, "gone").close(60) == 0
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("gone").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    stage = next(run for run in runs if run.info.run_name == "gone/2-sort")
    assert stage.data.metrics["loss/task"] == 4 / 24
    assert versions_of(uri, "gone-models") == {}


def test_nothing_is_registered_unless_asked(tmp_path: Path, arms: tuple[str, Path]) -> None:
    uri, _ = arms
    _, folder = make_run(tmp_path, "plain", KEPT)
    assert publish(folder, uri, "plain").close(60) == 0
    assert {version.name for version in client_of(uri).search_model_versions()} <= {"tiny-models", "late-models"}


def test_the_least_forgetting_version() -> None:
    def tags(stage: int, **figures: float) -> dict[str, str]:
        return {"stage": str(stage), **{key: repr(value) for key, value in figures.items()}}

    assert least_forgetting({}) is None
    assert least_forgetting({1: tags(1)}) is None
    # After fewer stages there was less to forget: version 2 is not compared.
    assert least_forgetting({1: tags(1), 2: tags(2, forgetting=0.0), 3: tags(3, forgetting=0.2)}) == 3
    assert least_forgetting({3: tags(3, forgetting=0.2), 6: tags(3, forgetting=-0.1)}) == 6
    # Equal: the better average, then the newest.
    assert least_forgetting({3: tags(3, forgetting=0.1, average_score=0.9),
                             6: tags(3, forgetting=0.1, average_score=0.8)}) == 3  # fmt: skip
    assert least_forgetting({3: tags(3, forgetting=0.1), 10: tags(3, forgetting=0.1)}) == 10
    # One stage forgets no stage's task, but old abilities.
    assert least_forgetting({1: tags(1, forgetting_old=0.3), 2: tags(1, forgetting_old=0.2)}) == 2
    assert least_forgetting({1: tags(2, forgetting=0.3), 2: tags(2, forgetting_old=0.0)}) == 1


def test_the_name_is_checked_before_anything_starts(tmp_path: Path) -> None:
    assert load_sequence(TINY, ["track.register=my-model"]).sequence.track.register == "my-model"
    assert load_sequence(TINY).sequence.track.register is None
    with pytest.raises(ConfigurationError, match=r"track\.register"):
        load_sequence(TINY, ["track.register=a/b"])
    # What is recorded of a run elsewhere does not change the run.
    assert load_sequence(TINY, ["track.register=a"]).identity == load_sequence(TINY).identity
