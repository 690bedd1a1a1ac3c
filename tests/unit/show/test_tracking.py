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

from continual.forgetting import Score, StageScores, matrix_as_json
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Events
from continual.ledger.lines import read_lines, write_line
from continual.ledger.records import Records
from continual.show.plots import matrix_figure
from continual.show.tracking import (
    Tracker,
    clean,
    flatten,
    git_state,
    sequence_metrics,
    stage_metrics,
)  # fmt: skip
from continual.show.tracking.names import PARAM_CHARACTERS, shorten
from continual.show.tracking.sender import Sender

MATRIX = [
    StageScores(0, "start", {"a": Score(0.0, 0.0, 9), "t": Score(-1.5, None, 9)}),
    StageScores(1, "one", {"a": Score(0.75, 0.1, 9)}),
]


class Written:
    """The files of a run with one stage, written as a driver and its workers write them."""

    def __init__(self, folder: Path, step: int = 0):
        """Begin or resume the run; its stage from the checkpoint at `step`."""
        self.files = RunFolder(folder)
        self.events = Events(self.files.ledger).open()
        self.events.run_id()
        self.metrics = self.files.stage(1, "one").metrics
        self.records = Records(self.metrics, step)

    def start(
        self, name: str, params: dict[str, Any] | None = None, tags: dict[str, str] | None = None, *files: str
    ) -> None:
        self.events.add("started", name=name, tags=tags or {}, params=flatten(params or {}), files=list(files))

    def prepare(self, sequence: str, **data: Any) -> None:
        """Begin the stage; its run in MLflow is `<sequence>/1-one`."""
        tags = {"sequence": sequence, "mitigation": "none"}
        self.events.add("prepared", stage=1, name="one", steps=3, tags=tags, data=data)

    def step(self, step: int, loss: dict[str, float] | None = None, **more: Any) -> None:
        losses = {"task": float(step)} if loss is None else loss
        self.records.append({"step": step, "loss": losses, "tokens": 100, "seconds": random.random(), **more})

    def score(self, stage: int, **metrics: float) -> None:
        self.events.add("scored", stage=stage, metrics=metrics)

    def done(self) -> None:
        self.events.add("stage_done", stage=1, version=None)

    def end(self, status: str = "FINISHED", *files: str, matrix: Any = None, stages: tuple[int, ...] = ()) -> None:
        self.events.add("ended", status=status, files=list(files), matrix=matrix, open=stages)

    def track(self, uri: str, experiment: str, enabled: bool = True) -> Tracker:
        return Tracker(self.files.ledger, uri, experiment, enabled)


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
        "import sys; from pathlib import Path; from tests.unit.show.test_tracking import Written\n"
        "run = Written(Path(sys.argv[1])); run.start(sys.argv[3])\n"
        "sys.exit(run.track(sys.argv[2], 'shared').close(120))"
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
    run.events.add("inside", stage=1, step=2, scores={"acc,none": {"score": 0.5}})
    run.score(1, **sequence_metrics({"forgetting": None}, MATRIX[1].scores))
    run.done()
    (run.files.figures / "deep").mkdir(parents=True)
    matrix_figure(MATRIX, run.files.matrix)
    matrix_figure(MATRIX, run.files.figures / "deep" / "matrix.png")
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
    assert child.data.metrics["loss/many 1499"] == 1499
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


def resumed(folder: Path, first_step: int, last_step: int) -> Written:
    """What a start leaves: the run and the stage begun again, the steps after those of the start before."""
    run = Written(folder, first_step - 1)
    run.start("kills", {"seed": 0})
    run.prepare("kills")
    for step in range(first_step, last_step + 1):
        run.step(step)
        run.score(step, a=step / 10)
    return run


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_positions_leave_one_parent_one_child_and_every_step_once(
    uri: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder, state_file = tmp_path / "run", RunFolder(tmp_path / "run").tracker_state
    first_step = 1
    for last_step in (3, 5, 9):
        assert resumed(folder, first_step, last_step).track(uri, "kills").close(30) == 0
        first_step = last_step + 1
        # A kill after the sending and before the saving leaves the state of an earlier event.
        state = json.loads(state_file.read_text())
        events = read_lines(RunFolder(folder).ledger)
        state["events"] = chance.randrange(len(events))
        state["steps"] = {"stage-1": chance.randrange(last_step)}
        sent = {event["event"] for event in events[: state["events"]]}
        known = {"sequence": "started" in sent, "stage-1": "prepared" in sent}
        state["runs"] = {key: run for key, run in state["runs"].items() if known[key]}
        state_file.write_text(json.dumps(state))
    with RunFolder(folder).ledger.open("a") as ledger:
        ledger.write('{"event": "scor')  # and in the middle of a line
    run = resumed(folder, first_step, 12)
    run.done()
    run.end()
    assert run.track(uri, "kills").close(30) == 0
    runs = runs_of(uri, "kills")
    assert sorted(runs) == ["kills", "kills/1-one"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert history(uri, runs["kills/1-one"], "loss/task") == [(step, float(step)) for step in range(1, 13)]
    assert history(uri, runs["kills"], "a") == [(step, step / 10) for step in range(1, 13)]


class Killed(Exception):
    pass


def test_steps_that_were_on_their_way_at_a_kill_are_sent_as_they_were(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage resumes from a checkpoint before them and writes them again, with other times and durations."""
    run = resumed(tmp_path / "run", 1, 8)
    save = Sender._save

    def killed_before_saving(sender: Sender) -> None:
        if sender.state.steps.get("stage-1") and not sender.state.pending:
            raise Killed
        save(sender)

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "_save", killed_before_saving)
        with pytest.raises(Killed):
            Sender(run.files.ledger, uri, "kills").send()
    assert len(history(uri, runs_of(uri, "kills")["kills/1-one"], "loss/task")) == 8

    assert resumed(tmp_path / "run", 5, 10).track(uri, "kills").close(30) == 0
    child = runs_of(uri, "kills")["kills/1-one"]
    for metric in ("loss/task", "tokens_per_second"):
        assert [step for step, _ in history(uri, child, metric)] == list(range(1, 11))


def test_a_stage_that_is_scored_again_stays_as_it_was_sent(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    run.start("again")
    run.score(1, a=0.5)
    assert run.track(uri, "again").close(30) == 0
    run.score(1, a=0.6)
    run.score(2, a=0.7)
    assert run.track(uri, "again").close(30) == 0
    assert history(uri, runs_of(uri, "again")["again"], "a") == [(1, 0.5), (2, 0.7)]


DRIVER = """
import sys, time
from pathlib import Path
from tests.unit.show.test_tracking import Written
run = Written(Path(sys.argv[1]))
tracker = run.track(sys.argv[2], "killed")
run.start("killed")
run.prepare("killed")
for step in range(1, 10_000):
    run.step(step)
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
    recorded = len(read_lines(RunFolder(tmp_path / "run").stage(1, "one").metrics))
    run = Written(tmp_path / "run", recorded)
    run.start("killed")
    run.end("KILLED", stages=(1,))
    assert run.track(uri, "killed").close(30) == 0
    runs = runs_of(uri, "killed")
    assert {name: run.info.status for name, run in runs.items()} == {"killed": "KILLED", "killed/1-one": "KILLED"}
    steps = [step for step, _ in history(uri, runs["killed/1-one"], "loss/task")]
    assert steps == list(range(1, recorded + 1))


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


NAMES = st.text(max_size=300) | st.text("./, :a", max_size=9)


@settings(deadline=None, max_examples=500)
@given(NAMES)
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
    assert clean("..0") == "__0"
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
    assert sequence_metrics(figures, {"a": Score(0.9, 0.01, 5), "b": Score(1)}) == {
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
