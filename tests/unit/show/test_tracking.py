"""Tracking against real MLflow: SQLite in tmp_path, and one server that is down first."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from continual.forgetting import Score, StageScores, matrix_as_json
from continual.ledger.folder import RunFolder
from continual.ledger.lines import write_line
from continual.show.heat_map import ScoreMatrix, matrix_figure
from continual.show.tracking import (
    Tracker,
    sequence_metrics,
)  # fmt: skip
from continual.show.tracking.names import PARAM_CHARACTERS, shorten
from continual.show.tracking.sender import Sender
from tests.kits.tracking import Written, client_of, history, resumed, runs_of

MATRIX = [
    StageScores(0, "start", {"a": Score(0.0, 0.0, 9), "t": Score(-1.5, None, 9)}),
    StageScores(1, "one", {"a": Score(0.75, 0.1, 9)}),
]
DRIFTED = {"drift": 0.25, "drift_stderr": 0.1, "drift_stage": 0.125}


@dataclass
class Outage:
    """A tracker whose server is down, then started (but not awaited) on the same port."""

    folder: Path
    uri: str
    median: float
    waiting: int
    close_seconds: float


@pytest.fixture(scope="module", autouse=True)
def outage(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Outage]:
    """First of all, so that the server starts while the other tests run."""
    folder = tmp_path_factory.mktemp("outage")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = Written(folder / "run")
    tracker = run.track(f"http://127.0.0.1:{port}", "outage")
    run.files.config.write_text("seed: 1")
    seconds = []
    for step in range(60):
        begin = time.perf_counter()
        if step == 0:
            run.start("outage", {"seed": 1}, {}, "config.yaml")
            run.prepare("outage")
        run.step(step + 1)
        run.events.add("phase", phase="train", stage=1, seconds=1.0)
        seconds.append(time.perf_counter() - begin)
        time.sleep(0.05)  # 3 s: the thread imports mlflow and fails meanwhile
    run.end(stages=(1,))
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


def test_a_tracker_that_is_down_delays_no_call(outage: Outage) -> None:
    assert outage.median < 0.05  # seconds; not the slowest, which on a busy machine waited for a core
    assert outage.waiting == 63  # three events and a record of every step
    assert outage.close_seconds < 6


def test_a_tracker_that_never_answers_delays_neither_calls_nor_close(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run = Written(tmp_path)
        begin = time.perf_counter()
        tracker = run.track(f"http://127.0.0.1:{silent.getsockname()[1]}", "silent")
        run.start("silent")
        run.events.add("stopped", why="b")
        assert time.perf_counter() - begin < 2  # a request waits 10 s
        assert tracker.close(timeout=1) == 2
        assert time.perf_counter() - begin < 5


def test_a_whole_sequence_arrives_in_order(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    run.files.config.write_text("seed: 0")
    tracker = run.track(uri, "demo")
    run.start("demo", {"train": {"steps": 3}}, {"git": "abc"}, "config.yaml")
    run.prepare("demo", rows={"content": "f" * 64, "path": "/store/rows/1", "counts": {"rows": 7}})
    for step in (1, 2):
        run.step(step, {"task": 1.0 / step}, drift={"x": float("nan")})
    run.step(3, {"task": 1 / 3, **{f"many {i}": i for i in range(1500)}})
    run.events.add("inside", stage=1, step=2, scores={"acc,none": {"score": 0.5, **DRIFTED}})
    run.score(1, **sequence_metrics({"forgetting": None}, MATRIX[1].scores))
    run.done()
    (run.files.figures / "deep").mkdir(parents=True)
    matrix_figure(ScoreMatrix(MATRIX, {}, {}), run.files.matrix)
    matrix_figure(ScoreMatrix(MATRIX, {}, {}), run.files.figures / "deep" / "matrix.png")
    run.end("FAILED", "matrix.png", "report", "never written", matrix=matrix_as_json(MATRIX))
    assert tracker.wait_for("stage-1", 30) is not None
    assert tracker.close(30) == 0

    runs = runs_of(uri, "demo")
    parent, child = runs["demo"], runs["demo/1-one"]
    assert (parent.info.status, child.info.status) == ("FAILED", "FINISHED")
    assert parent.info.run_id == tracker.run_id("sequence")
    assert parent.data.params == {"train.steps": "3"}
    assert parent.data.tags["git"] == "abc"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"steps": "3", "mitigation": "none"}
    assert history(uri, child, "loss/task") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert history(uri, child, "score/acc:none") == [(2, 0.5)]
    drift = {"drift": 0.25, "stderr/drift": 0.1, "drift_stage": 0.125}
    assert [history(uri, child, f"{name}/acc:none") for name in drift] == [[(2, value)] for value in drift.values()]
    assert child.data.metrics["loss/many 1499"] == 1499
    assert history(uri, child, "passes/rows") == [(0, 0.75)]
    assert parent.data.metrics == {"score/a": 0.75, "stderr/score/a": 0.1}
    dataset = child.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("rows", "f" * 16)
    assert {tag.key: tag.value for tag in dataset.tags}["mlflow.data.context"] == "replay"
    artifacts = tmp_path / "mlartifacts" / parent.info.run_id / "artifacts"
    assert (artifacts / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert (artifacts / "report" / "deep" / "matrix.png").is_file()
    assert (artifacts / "config.yaml").read_text() == "seed: 0"
    table = json.loads((artifacts / "matrix.json").read_text())
    assert table == {
        "columns": ["stage", "name", "a", "a stderr", "t", "t stderr"],
        "data": [[0, "start", 0.0, 0.0, -1.5, None], [1, "one", 0.75, 0.1, None, None]],
    }
    assert json.loads(parent.data.tags["mlflow.loggedArtifacts"]) == [{"path": "matrix.json", "type": "table"}]


def test_mlflow_reads_the_table(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    run = Written(tmp_path / "run")
    run.start("table")
    for _ in range(2):  # a repeat replaces it
        run.end(matrix=matrix_as_json(MATRIX))
    assert run.track(uri, "table").close(30) == 0
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        experiment = mlflow.get_experiment_by_name("table")
        assert experiment is not None
        frame = mlflow.MlflowClient(uri).load_table(experiment.experiment_id, "matrix.json")
    finally:
        mlflow.set_tracking_uri(before)
    assert frame["a"].tolist() == [0.0, 0.75]


def test_a_stage_that_is_scored_again_stays_as_it_was_sent(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    run.start("again")
    run.score(1, a=0.5)
    assert run.track(uri, "again").close(30) == 0
    run.score(1, a=0.6)
    run.score(2, a=0.7)
    assert run.track(uri, "again").close(30) == 0
    assert history(uri, runs_of(uri, "again")["again"], "a") == [(1, 0.5), (2, 0.7)]


def test_a_finished_run_is_opened_again_and_changed_parameters_become_tags(uri: str, tmp_path: Path) -> None:
    long = "x" * 7000
    run = Written(tmp_path / "run")
    run.start("params", {"workers": 1, "prompt": long})
    run.end()
    assert run.track(uri, "params").close(30) == 0
    run.start("params", {"workers": 2, "prompt": long, "new": None})
    assert run.track(uri, "params").close(30) == 0
    [found] = runs_of(uri, "params").values()
    assert found.info.status == "RUNNING"
    assert found.data.params == {"workers": "1", "prompt": shorten(long, PARAM_CHARACTERS), "new": "null"}
    assert found.data.tags["params/workers"] == "2"
    assert "params/prompt" not in found.data.tags


def test_a_run_deleted_in_mlflow_stops_nothing_and_is_made_anew_at_the_next_start(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    tracker = run.track(uri, "deleted")
    run.start("deleted")
    run.prepare("deleted")
    deleted = tracker.wait_for("stage-1", 30)
    client_of(uri).delete_run(deleted)
    run.step(1)
    run.step(2)
    run.events.add("inside", stage=1, step=1, scores={"a": {"score": 0.5}})
    run.score(1, score=1.0)
    run.prepare("deleted")
    assert tracker.close(30) == 0
    runs = runs_of(uri, "deleted")
    assert runs["deleted"].data.metrics == {"score": 1.0}
    assert runs["deleted/1-one"].info.run_id != deleted


def test_what_mlflow_refuses_is_passed_and_the_rest_arrives(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    run.start("refused")
    run.prepare("refused")
    run.step(1)
    write_line(run.records.file, {"step": 2, "loss": {"task": 2.0}, "time": -1})
    run.step(3)
    run.end()
    assert run.track(uri, "refused").close(30) == 0
    child = runs_of(uri, "refused")["refused/1-one"]
    assert [step for step, _ in history(uri, child, "loss/task")] == [1, 3]


def test_another_or_an_emptied_tracker_gets_everything(uri: str, database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = resumed(folder, 1, 4)
    assert run.track(uri, "kills").close(30) == 0
    shutil.copy(database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    assert run.track(other, "kills").close(30) == 0
    assert len(history(other, runs_of(other, "kills")["kills/1-one"], "loss/task")) == 4

    state = json.loads(run.files.tracker_state.read_text())
    state["runs"] = dict.fromkeys(state["runs"], "0" * 32)  # as if the database had been made anew
    run.files.tracker_state.write_text(json.dumps(state))
    assert resumed(folder, 5, 5).track(other, "kills").close(30) == 0
    assert len(history(other, runs_of(other, "kills")["kills/1-one"], "loss/task")) == 5


def test_drivers_that_create_one_database_together_all_survive(database: Path) -> None:
    assert sorted(runs_of(f"sqlite:///{database}", "shared")) == ["one", "two"]


def test_switched_off_it_writes_nothing(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "ledger.jsonl", "http://127.0.0.1:1", "off", enabled=False)
    assert tracker.wait_for("sequence", 5) is None
    assert (tracker.waiting, tracker.close()) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_before_it_is_started_is_left_alone(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    run.end("FAILED")
    assert run.track(uri, "early").close(30) == 0
    assert runs_of(uri, "early") == {}


def test_a_run_whose_tracker_never_answered_is_known_to_be_tracked(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.start("away")
    assert run.track("http://127.0.0.1:1", "away").close(0.1) == 1
    assert run.files.tracker_state.is_file()


def test_records_follow_when_the_server_is_back(outage: Outage) -> None:
    tracker = Tracker(RunFolder(outage.folder / "run").ledger, outage.uri, "outage")
    assert tracker.waiting == outage.waiting
    deadline = time.monotonic() + 60
    while tracker.waiting and time.monotonic() < deadline:
        time.sleep(0.2)
    assert tracker.close() == 0
    runs = runs_of(outage.uri, "outage")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["outage"].data.params == {"seed": "1"}
    assert len(history(outage.uri, runs["outage/1-one"], "loss/task")) == 60
    assert [path.read_text() for path in (outage.folder / "artifacts").rglob("config.yaml")] == ["seed: 1"]


def test_a_tracker_begins_when_the_one_before_has_ended(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a forecast is recorded while the end of its run still waits for a server."""
    send, held, at_work, together = Sender.send, threading.Event(), set[int](), list[int]()

    def slow(sender: Sender) -> None:
        if sender.events != run.files.ledger:  # of another test, whose tracker still tries
            return send(sender)
        at_work.add(id(sender))
        together.append(len(at_work))
        held.wait(30)
        try:
            return send(sender)
        finally:  # an attempt may fail, as where the database is busy
            at_work.discard(id(sender))

    run = Written(tmp_path / "run")
    run.start("two")
    monkeypatch.setattr(Sender, "send", slow)
    assert run.track(uri, "two").close(0.5) == 1
    run.score(1, a=0.5)
    second = run.track(uri, "two")
    time.sleep(1.5)
    held.set()
    assert second.close(30) == 0
    assert set(together) == {1}
    assert history(uri, runs_of(uri, "two")["two"], "a") == [(1, 0.5)]
