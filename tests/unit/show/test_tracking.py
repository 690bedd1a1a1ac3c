"""Tracking against real MLflow: SQLite in tmp_path, and one server that is down first."""

import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.show.tracking import (
    Tracker,
    clean,
    flatten,
    git_state,
    matrix_figure,
    matrix_table,
    sequence_metrics,
    stage_metrics,
)  # fmt: skip
from continual.show.tracking.names import PARAM_CHARACTERS, shorten
from continual.show.tracking.spool import Spool

MATRIX: list[dict[str, Any]] = [
    {"stage": 0, "name": "start", "scores": {"a": {"score": 0.0, "stderr": 0.0, "n": 9}, "t": {"score": -1.5, "n": 9}}},
    {"stage": 1, "name": "one", "scores": {"a": {"score": 0.75, "stderr": 0.1, "n": 9}}},
]


@dataclass
class Outage:
    """A tracker whose server is down, then started (but not awaited) on the same port."""

    folder: Path
    uri: str
    median: float
    waiting: int
    close_seconds: float


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that two drivers created at the same moment; the tests copy it, for creating one takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    code = (
        "import sys; from pathlib import Path; from continual.show.tracking import Tracker\n"
        "tracker = Tracker(Path(sys.argv[1]), sys.argv[2], 'shared'); tracker.start_run('sequence', sys.argv[3])\n"
        "sys.exit(tracker.close(120))"
    )
    uri = f"sqlite:///{folder}/new/mlflow.db"
    names = ("one", "two")
    drivers = [subprocess.Popen([sys.executable, "-c", code, str(folder / name), uri, name]) for name in names]
    assert [driver.wait(150) for driver in drivers] == [0, 0]
    return folder / "new" / "mlflow.db"


@pytest.fixture(scope="module", autouse=True)
def outage(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Outage]:
    """First of all, so that the server starts while the other tests run."""
    folder = tmp_path_factory.mktemp("outage")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tracker = Tracker(folder / "run", f"http://127.0.0.1:{port}", "outage")
    seconds = []
    for step in range(60):
        begin = time.perf_counter()
        if step == 0:
            tracker.start_run("sequence", "outage", params={"seed": 1})
        tracker.metrics("sequence", {"loss/task": 1.0 / (step + 1)}, step)
        seconds.append(time.perf_counter() - begin)
        time.sleep(0.05)  # 3 s: the thread imports mlflow and fails meanwhile
    tracker.text("sequence", "seed: 1", "config.yaml")
    tracker.finish("sequence")
    begin = time.perf_counter()
    waiting = tracker.close(timeout=3)
    result = Outage(folder, tracker.uri, statistics.median(seconds), waiting, time.perf_counter() - begin)
    shutil.copy(database, folder / "mlflow.db")
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "server.log").open("w") as output:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    yield result
    os.killpg(server.pid, 9)
    server.wait()


@pytest.fixture
def uri(database: Path, tmp_path: Path) -> str:
    shutil.copy(database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_of(uri: str, experiment: str) -> dict[str, Any]:
    """MLflow's runs by name; no name twice."""
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client_of(uri).get_metric_history(run.info.run_id, metric)]


def test_a_tracker_that_is_down_delays_no_call(outage: Outage) -> None:
    assert outage.median < 0.05  # seconds; not the slowest, which on a busy machine waited for a core
    assert outage.waiting == 63
    assert outage.close_seconds < 6


def test_a_tracker_that_never_answers_delays_neither_calls_nor_close(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tracker = Tracker(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", "silent")
        begin = time.perf_counter()
        tracker.start_run("sequence", "silent")
        tracker.tags("sequence", {"a": "b"})
        assert time.perf_counter() - begin < 2  # a request waits 10 s
        assert tracker.close(timeout=1) == 2
        assert time.perf_counter() - begin < 5


def test_a_whole_sequence_arrives_in_order(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "run", uri, "demo")
    tracker.start_run("sequence", "demo", params={"train": {"steps": 3}}, tags={"git": "abc"})
    tracker.start_run("stage-1", "demo/one", parent="sequence")
    for step in (1, 2, 3):
        tracker.metrics("stage-1", {"loss/task": 1.0 / step, "acc,none": 0.5, "drift/x": float("nan")}, step)
    tracker.metrics("stage-1", {f"many/{i}": i for i in range(1500)}, 3)
    tracker.dataset("stage-1", "rows", "f" * 64, "/store/rows/1", "train", {"rows": 7}, {"ids": "long"})
    tracker.finish("stage-1")
    tracker.metrics("sequence", sequence_metrics({"forgetting": None}, MATRIX[1]["scores"]), 1)
    matrix_figure(MATRIX, tmp_path / "matrix.png")
    tracker.artifact("sequence", tmp_path / "matrix.png", "figures")
    tracker.artifact("sequence", tmp_path / "never written")
    tracker.table("sequence", matrix_table(MATRIX), "matrix.json")
    tracker.text("sequence", "seed: 0", "config.yaml")
    tracker.finish("sequence", "FAILED")
    assert tracker.wait_for("stage-1", 30) is not None
    assert tracker.close(30) == 0

    runs = runs_of(uri, "demo")
    parent, child = runs["demo"], runs["demo/one"]
    assert (parent.info.status, child.info.status) == ("FAILED", "FINISHED")
    assert parent.info.run_id == tracker.run_id("sequence")
    assert parent.data.params == {"train.steps": "3"}
    assert parent.data.tags["git"] == "abc"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert history(uri, child, "loss/task") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert child.data.metrics["acc:none"] == 0.5
    assert child.data.metrics["many/1499"] == 1499
    assert parent.data.metrics == {"score/a": 0.75, "stderr/score/a": 0.1}
    dataset = child.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("rows", "f" * 36)
    assert {tag.key: tag.value for tag in dataset.tags}["mlflow.data.context"] == "train"
    artifacts = tmp_path / "mlartifacts" / parent.info.run_id / "artifacts"
    assert (artifacts / "figures" / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert (artifacts / "config.yaml").read_text() == "seed: 0"
    table = json.loads((artifacts / "matrix.json").read_text())
    assert table == {
        "columns": ["stage", "name", "a", "a stderr", "t", "t stderr"],
        "data": [[0, "start", 0.0, 0.0, -1.5, None], [1, "one", 0.75, 0.1, None, None]],
    }
    assert json.loads(parent.data.tags["mlflow.loggedArtifacts"]) == [{"path": "matrix.json", "type": "table"}]


def test_mlflow_reads_the_table(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    tracker = Tracker(tmp_path / "run", uri, "table")
    tracker.start_run("sequence", "table")
    for _ in range(2):  # a repeat replaces it
        tracker.table("sequence", matrix_table(MATRIX), "matrix.json")
    assert tracker.close(30) == 0
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        experiment = mlflow.get_experiment_by_name("table").experiment_id
        frame = mlflow.MlflowClient(uri).load_table(experiment, "matrix.json")
    finally:
        mlflow.set_tracking_uri(before)
    assert frame["a"].tolist() == [0.0, 0.75]


def resumed(folder: Path, uri: str, last_step: int) -> Tracker:
    """What a driver does at every start: open the runs again and report from the first step on."""
    tracker = Tracker(folder, uri, "kills")
    tracker.start_run("sequence", "parent", params={"seed": 0})
    tracker.start_run("stage-1", "child", parent="sequence")
    for step in range(1, last_step + 1):
        tracker.metrics("stage-1", {"loss/task": float(step)}, step)
        tracker.metrics("sequence", {"score/a": step / 10}, step)
    return tracker


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_positions_leave_one_parent_one_child_and_every_step_once(
    uri: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder, state_file = tmp_path / "run", tmp_path / "run" / "mlflow" / "state.json"
    for last_step in (3, 5, 9):
        assert resumed(folder, uri, last_step).close(30) == 0
        # A kill after the sending and before the saving leaves the state of an earlier record.
        state = json.loads(state_file.read_text())
        entries = list(Spool(folder / "mlflow" / "spool.jsonl").read())
        sent = chance.randrange(len(entries))
        started = {entry.record["key"] for entry in entries[:sent] if entry.record["kind"] == "start"}
        state |= {"sent": sent, "offset": entries[sent - 1].end if sent else 0}
        state["runs"] = {key: run for key, run in state["runs"].items() if key in started}
        state_file.write_text(json.dumps(state))
    with (folder / "mlflow" / "spool.jsonl").open("a") as spool:
        spool.write('{"n": 99, "kind": "met')  # and in the middle of a line
    tracker = resumed(folder, uri, 12)
    tracker.finish("stage-1")
    tracker.finish("sequence")
    assert tracker.close(30) == 0
    runs = runs_of(uri, "kills")
    assert sorted(runs) == ["child", "parent"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert history(uri, runs["child"], "loss/task") == [(step, float(step)) for step in range(1, 13)]
    assert history(uri, runs["parent"], "score/a") == [(step, step / 10) for step in range(1, 13)]


DRIVER = """
import sys, time
from pathlib import Path
from continual.show.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), sys.argv[2], "killed")
tracker.start_run("sequence", "parent")
tracker.start_run("stage-1", "child", parent="sequence")
for step in range(1, 10_000):
    tracker.metrics("stage-1", {"loss/task": float(step)}, step)
    if step == 5:
        tracker.wait_for("stage-1", 60)
        print("sending", flush=True)
    time.sleep(0.01)
"""


def test_a_driver_killed_while_it_sends_is_continued(uri: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "run"), uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "sending\n"
        time.sleep(random.uniform(0.9, 1.3))  # around the second sending
        driver.kill()
    tracker = Tracker(tmp_path / "run", uri, "killed")
    tracker.start_run("stage-1", "child", parent="sequence")
    recorded = tracker._steps["stage-1", "loss/task"]
    for key in ("stage-1", "sequence"):
        tracker.finish(key, "KILLED")
    assert tracker.close(30) == 0
    runs = runs_of(uri, "killed")
    assert {name: run.info.status for name, run in runs.items()} == {"parent": "KILLED", "child": "KILLED"}
    assert [step for step, _ in history(uri, runs["child"], "loss/task")] == list(range(1, recorded + 1))


def test_a_finished_run_is_opened_again_and_changed_parameters_become_tags(uri: str, tmp_path: Path) -> None:
    long = "x" * 7000
    tracker = Tracker(tmp_path / "run", uri, "params")
    tracker.start_run("sequence", "params", params={"workers": 1, "prompt": long})
    tracker.finish("sequence")
    assert tracker.close(30) == 0
    tracker = Tracker(tmp_path / "run", uri, "params")
    tracker.start_run("sequence", "params", params={"workers": 2, "prompt": long, "new": None})
    assert tracker.close(30) == 0
    run = runs_of(uri, "params")["params"]
    assert run.info.status == "RUNNING"
    assert run.data.params == {"workers": "1", "prompt": shorten(long, PARAM_CHARACTERS), "new": "null"}
    assert run.data.tags["params/workers"] == "2"
    assert "params/prompt" not in run.data.tags


def test_a_run_deleted_in_mlflow_stops_nothing_and_is_made_anew_at_the_next_start(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "run", uri, "deleted")
    tracker.start_run("sequence", "parent")
    tracker.start_run("stage-1", "child", parent="sequence")
    deleted = tracker.wait_for("stage-1", 30)
    client_of(uri).delete_run(deleted)
    tracker.metrics("stage-1", {"loss": 1.0}, 1)
    tracker.metrics("stage-1", {"loss": 1.0}, 2)
    tracker.metrics("sequence", {"score": 1.0}, 1)
    tracker.start_run("stage-1", "child", parent="sequence")
    assert tracker.close(30) == 0
    runs = runs_of(uri, "deleted")
    assert runs["parent"].data.metrics == {"score": 1.0}
    assert runs["child"].info.run_id != deleted


def test_another_or_an_emptied_tracker_gets_everything(uri: str, database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert resumed(folder, uri, 4).close(30) == 0
    shutil.copy(database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    assert Tracker(folder, other, "kills").close(30) == 0
    assert len(history(other, runs_of(other, "kills")["child"], "loss/task")) == 4

    state_file = folder / "mlflow" / "state.json"
    state = json.loads(state_file.read_text())
    state["runs"] = dict.fromkeys(state["runs"], "0" * 32)  # as if the database had been made anew
    state_file.write_text(json.dumps(state))
    assert resumed(folder, other, 5).close(30) == 0
    assert len(history(other, runs_of(other, "kills")["child"], "loss/task")) == 5


def test_drivers_that_create_one_database_together_all_survive(database: Path) -> None:
    assert sorted(runs_of(f"sqlite:///{database}", "shared")) == ["one", "two"]


def test_switched_off_it_writes_nothing(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "http://127.0.0.1:1", "off", enabled=False)
    tracker.start_run("sequence", "off")
    tracker.metrics("sequence", {"a": 1.0}, 1)
    assert tracker.wait_for("sequence", 5) is None
    assert (tracker.waiting, tracker.close()) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_has_to_be_started_first(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "http://127.0.0.1:1", "order")
    with pytest.raises(ValueError, match="stage-1"):
        tracker.metrics("stage-1", {"a": 1.0}, 1)
    with pytest.raises(ValueError, match="sequence"):
        tracker.start_run("stage-1", "one", parent="sequence")
    tracker.finish("sequence", "FAILED")
    assert tracker.close() == 0


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=300))
def test_any_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

    cleaned = clean(name)
    _validate_metric_name(cleaned)
    _validate_length_limit("Metric name", 250, cleaned)
    assert clean(cleaned) == cleaned


def test_names_keep_what_they_can() -> None:
    assert clean("loss/task-1.x") == "loss/task-1.x"
    assert clean("acc,none") == "acc:none"
    assert clean("../a=b//c") == "a_b/c"
    assert clean("") == "_"
    assert clean("a" * 300) != clean("a" * 301)


def test_a_configuration_becomes_flat_parameters() -> None:
    nested = {"a": {"b": 1.5, "c": None}, "m": [{"w": True}, {"w": "x"}], "l": [1, 2], "e": {}, "s": "text"}
    assert flatten(nested) == {
        "a.b": "1.5", "a.c": "null", "m.0.w": "true", "m.1.w": "x", "l": "[1, 2]", "e": "{}", "s": "text",
    }  # fmt: skip


def test_a_line_of_metrics_becomes_named_numbers() -> None:
    record = {
        "step": 3, "loss": {"task": 1.5, "context_free": 0.5}, "weight": {"task": 1}, "tokens": 100, "task_tokens": 80,
        "seconds": 0.5, "data_wait": 0.1, "learning_rate": 1e-3, "gradient_norm": None, "rows": {"task": "abc"},
        "drift": {"context_free": 0.01},
    }  # fmt: skip
    assert stage_metrics(record) == {
        "loss/task": 1.5, "loss/context_free": 0.5, "weight/task": 1.0, "drift/context_free": 0.01,
        "learning_rate": 1e-3, "tokens_per_second": 200.0, "data_wait_fraction": 0.2,
    }  # fmt: skip


def test_figures_and_scores_become_named_numbers() -> None:
    figures = {
        "stage": 1, "name": "one", "forgetting": 0.1, "forgetting_old": None,
        "forgetting_by_task": {"a": 0.1, "b": None}, "stderr": {"forgetting": 0.02, "forgetting_by_task": {"a": 0.03}},
    }  # fmt: skip
    assert sequence_metrics(figures, {"a": {"score": 0.9, "stderr": 0.01, "n": 5}, "b": {"score": 1}}) == {
        "forgetting": 0.1, "forgetting/a": 0.1, "stderr/forgetting": 0.02, "stderr/forgetting/a": 0.03,
        "score/a": 0.9, "stderr/score/a": 0.01, "score/b": 1.0,
    }  # fmt: skip


def test_the_git_state_never_fails(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {}
    assert git_state(tmp_path / "missing") == {}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "first"]):
        (tmp_path / "file").write_text("a")
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "file").write_text("b")
    assert git_state(tmp_path)["dirty"] is True


def test_records_follow_when_the_server_is_back(outage: Outage) -> None:
    tracker = Tracker(outage.folder / "run", outage.uri, "outage")
    assert tracker.waiting == outage.waiting
    deadline = time.monotonic() + 60
    while tracker.waiting and time.monotonic() < deadline:
        time.sleep(0.2)
    assert tracker.close() == 0
    run = runs_of(outage.uri, "outage")["outage"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "1"}
    assert len(history(outage.uri, run, "loss/task")) == 60
    assert [path.read_text() for path in (outage.folder / "artifacts").rglob("config.yaml")] == ["seed: 1"]
