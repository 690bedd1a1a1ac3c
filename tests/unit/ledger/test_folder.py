"""The names of a run's files: what is found by step."""

from pathlib import Path

from continual.ledger.folder import RunFolder, step_name, steps_in


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
