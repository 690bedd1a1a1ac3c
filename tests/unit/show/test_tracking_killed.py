"""The tracker after a kill, of the driver or in the middle of sending: every record once, in order."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from continual.ledger.folder import RunFolder
from continual.ledger.lines import read_lines
from continual.show.tracking.client import close_runs
from continual.show.tracking.sender import Sender
from tests.kits.tracking import Written, history, resumed, runs_of


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


DRIVER = """
import sys, time
from pathlib import Path
from tests.kits.tracking import Written, resumed
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
        time.sleep(random.Random(3).uniform(0.9, 1.3))  # around the second sending
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


def test_a_driver_killed_while_the_database_is_made_leaves_none_that_mlflow_cannot_open(tmp_path: Path) -> None:
    """MLflow makes its tables in many steps; a file with some of them could never be opened again."""
    database = tmp_path / "storage" / "mlflow.db"
    uri = f"sqlite:///{database}"
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "run"), uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        while not any(file.stat().st_size for file in database.parent.rglob(database.name)):
            assert driver.poll() is None, "the driver ended before it made the database"
            time.sleep(0.01)
        driver.kill()
    assert not database.exists(), "the kill came too late to test anything"
    recorded = len(read_lines(RunFolder(tmp_path / "run").stage(1, "one").metrics))
    run = Written(tmp_path / "run", recorded)
    run.start("killed")
    run.end("KILLED", stages=(1,))
    assert run.track(uri, "killed").close(30) == 0
    assert {run.info.status for run in runs_of(uri, "killed").values()} == {"KILLED"}
    assert [path.name for path in database.parent.iterdir() if path.name.startswith(".")] == []


def test_what_cleans_up_after_a_kill_makes_no_database(tmp_path: Path) -> None:
    """A driver that is killed before its tracker answered has no runs to close; only `connect` makes tables."""
    close_runs(tmp_path / "run", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []
