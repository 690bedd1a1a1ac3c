"""What may be resumed: the version and the configuration that a run was begun with; and a tracker that was down."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.ledger.changes import refuse_changes
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import FORMAT
from continual.run.resume import catch_up, claim, finished
from tests.kits.runs import KEPT, loaded, make_run, publish
from tests.kits.sweep import summary


def begun(folder: Path, **first: Any) -> None:
    folder.mkdir(parents=True)
    RunFolder(folder).ledger.write_text(json.dumps({"event": "run", "time": 0, "id": "x", **first}) + "\n")


@pytest.mark.parametrize("first", [{}, {"format": FORMAT + 1}, {"format": None}])
def test_a_run_of_another_version_is_refused_in_one_sentence(tmp_path: Path, first: dict[str, Any]) -> None:
    run = loaded(tmp_path, "old")
    begun(run.run_folder, **first)
    with pytest.raises(ConfigurationError) as error, claim(run.run_folder, run, fresh=False):
        pass
    message = str(error.value)
    assert f"the run `old` in {run.run_folder} was begun by another version of continual" in message
    assert "choose a new `name`, or give --fresh" in message
    assert "\n" not in message


def test_a_finished_run_of_another_version_is_refused(tmp_path: Path) -> None:
    run = loaded(tmp_path, "old")
    begun(run.run_folder)
    with RunFolder(run.run_folder).ledger.open("a") as file:
        file.write('{"event": "closed", "time": 0}\n')
    RunFolder(run.run_folder).summary.write_text(json.dumps(summary({})))
    with pytest.raises(ConfigurationError, match="another version"):
        finished(run.run_folder, run)


def test_fresh_begins_a_run_of_another_version_again(tmp_path: Path) -> None:
    run = loaded(tmp_path, "old")
    begun(run.run_folder)
    with claim(run.run_folder, run, fresh=True) as ledger:
        ledger.run_id()
    with claim(run.run_folder, run, fresh=False) as ledger:
        assert ledger.events[0]["format"] == FORMAT


def test_a_folder_without_events_can_be_begun(tmp_path: Path) -> None:
    run = loaded(tmp_path, "new")
    run.run_folder.mkdir(parents=True)
    RunFolder(run.run_folder).ledger.touch()
    refuse_changes(run.run_folder, run)


def test_a_finished_run_whose_tracker_was_down_is_sent_at_the_next_start(tmp_path: Path) -> None:
    run, folder = make_run(tmp_path, "late", KEPT)
    files = RunFolder(folder)
    assert publish(folder, "http://127.0.0.1:1", "late").close(0.1) > 0
    summary = {**json.loads(files.summary.read_text()), "mlflow_run_id": None}
    catch_up(run, summary)
    assert summary["mlflow_run_id"] is not None
    assert json.loads(files.summary.read_text())["mlflow_run_id"] == summary["mlflow_run_id"]


def test_a_run_that_was_never_tracked_is_not_sent(tmp_path: Path) -> None:
    run, folder = make_run(tmp_path, "untracked", KEPT)
    catch_up(run, {"mlflow_run_id": None})
    assert not RunFolder(folder).tracker_state.exists()
