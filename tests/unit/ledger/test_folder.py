"""The names of a run's files: what is found by step."""

from pathlib import Path

import pytest
import sqlalchemy

from continual.ledger.folder import RunFolder, default_tracking_uri, sqlite_file, step_name, steps_in


def test_a_stage_lies_below_its_run() -> None:
    files = RunFolder(Path("runs/demo")).stage(2, "sort")
    assert files.path == Path("runs/demo/stages/2-sort")
    assert files.score_file(12) == Path("runs/demo/stages/2-sort/scores/step-00000012.json")


def test_entries_are_found_by_step_whatever_else_is_there(tmp_path: Path) -> None:
    assert steps_in(tmp_path / "missing") == {}
    for name in ("step-00000012.json", "step-00000012.samples.jsonl", "step-9.json", "step-x.json", "other.json"):
        (tmp_path / name).touch()
    (tmp_path / step_name(3)).mkdir()
    assert list(steps_in(tmp_path, ".json")) == [9, 12]
    assert list(steps_in(tmp_path)) == [3]


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?b", "a#b", "100%", "ä"])
def test_the_default_tracker_is_in_the_storage_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    engine = sqlalchemy.create_engine(default_tracking_uri(folder))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("create table t (x int)"))
    engine.dispose()
    assert (folder / "mlflow.db").is_file()
    assert sqlite_file(default_tracking_uri(folder)) == folder / "mlflow.db"
