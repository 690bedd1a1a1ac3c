"""The environment of a run's processes: the user's settings stay, and all of them are written in one way."""

import json
from pathlib import Path

import pytest

from continual.run import environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*environment.DEFAULTS, *environment.HANDED_ON, *environment.LOCAL_HANDED_ON):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


def test_what_the_user_has_set_stays_and_reaches_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "7")
    environment.set_defaults(local=True)
    assert environment.job_environment()["env_vars"] == {
        "PYTHONPATH": f"{tmp_path}:/mine",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "7",
        "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    }


def test_on_a_cluster_nodes_that_go_are_looked_for() -> None:
    environment.set_defaults(local=False)
    assert "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" not in environment.job_environment()["env_vars"]


def test_it_is_written_as_rays_core_writes_it() -> None:
    environment.set_defaults(local=True)
    made = environment.job_environment()
    written = made.serialize()
    assert json.loads(written) == made.to_dict()
    assert written == json.dumps(made.to_dict(), sort_keys=True, separators=(",", ":"))
