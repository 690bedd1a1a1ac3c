"""What goes wrong in other people's code and files, through the command line: one sentence that names the cause."""

from pathlib import Path

import pytest
import yaml

from continual.config.load import load_sequence
from continual.run.resume import claim
from tests.e2e import command

pytestmark = pytest.mark.slow

ROWS = """
def rows():
    for number in range(400):
        if number == 300:
            raise ValueError("row 300 has no label\\nTo see more, read the manual")
        yield {"text": f"Once upon a time there were {number} birds."}
"""


FIX = "correct the function or its arguments"


@pytest.fixture
def sequence(tmp_path: Path, stories: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "other_rows.py").write_text(ROWS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    value = {
        "name": "foreign",
        "model": {"type": "pretrained", "source": str(stories)},
        "stages": [{"name": "birds", "data": {"type": "python", "function": "other_rows:rows"}, "steps": 4}],
        "train": {"batch_tokens": 256, "row_tokens": 64},
        "generate": {"engine": "transformers"},
    }
    file = tmp_path / "seq.yaml"
    file.write_text(yaml.safe_dump(value))
    return file


def test_an_error_of_the_users_function_is_told_by_its_first_line(sequence: Path, tmp_path: Path) -> None:
    ended = command.run(tmp_path / "runs", yaml=sequence)
    assert ended.returncode == 2
    [told] = ended.stderr.strip().splitlines()
    place = f"error: {sequence}: stages.0.data.function: document 301: "
    assert told == f"{place}`other_rows:rows` failed (ValueError: row 300 has no label); {FIX}"


def test_an_error_inside_ray_is_told_by_its_first_line(sequence: Path, tmp_path: Path) -> None:
    # A function whose file a worker alone cannot read: nothing can be found before the start.
    (tmp_path / "other_rows.py").write_text("import sys\n" + ROWS.replace("== 300", "== 300 and 'ray' in sys.modules"))
    ended = command.run(tmp_path / "runs", yaml=sequence)
    assert ended.returncode == 2
    [told] = ended.stderr.strip().splitlines()
    assert told.startswith(f"error: {sequence}: stages.0.data.function: ")
    assert told.endswith(f"document 301: `other_rows:rows` failed (ValueError: row 300 has no label); {FIX}")


def test_what_cannot_be_scored_is_told_by_the_plan(sequence: Path, tmp_path: Path) -> None:
    (tmp_path / "birds.yaml").write_text("group: birds\ntask: [arc_easy, arc_challenge]\n")
    given = [f"evaluate.include_path={tmp_path}", "evaluate.old_tasks=[birds]"]
    ended = command.run(tmp_path / "runs", *given, "--plan", yaml=sequence)
    assert ended.returncode == 2
    assert ended.stderr.endswith("list its members instead: arc_easy, arc_challenge\n")


def test_a_changed_configuration_is_told_by_the_plan(sequence: Path, tmp_path: Path) -> None:
    begun = load_sequence(sequence, [f"storage={tmp_path}/runs"])
    with claim(begun.run_folder, begun, fresh=False) as ledger:
        ledger.run_id()
    (tmp_path / "other_rows.py").write_text(ROWS.replace("== 300", "== 10_000"))
    changed = "train.learning_rate=0.5"
    plan = command.run(tmp_path / "runs", changed, "--plan", yaml=sequence)
    run = command.run(tmp_path / "runs", changed, yaml=sequence)
    # A plan also says which of the user's code it imports and calls.
    [said] = [line for line in plan.stderr.splitlines() if not line.startswith("plan: ")]
    assert (plan.returncode, said) == (run.returncode, run.stderr.strip()) == (2, said)
    assert "was begun with other values of train.learning_rate" in said
    assert "begun with another configuration" in plan.stdout
