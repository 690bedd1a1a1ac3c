"""The measurements of training run as commands at tiny sizes, write what they found, and say their goals."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.throughput import examples, goals, sides

LINES = {"training": 2, "ray_training": 4, "replay": 8, "losses": 4, "examples": 2}
"""Lines in the table of goals."""
LONG = ("ray_training", "replay")
"""They start Ray, or many processes, for every side."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.soak if n in LONG else pytest.mark.slow) for n in LINES]
)
def test_a_command_writes_what_it_found(name: str, tmp_path: Path) -> None:
    if name == "examples" and importlib.util.find_spec("trl") is None:
        pytest.skip("needs `trl`, which is no dependency")
    command = [sys.executable, "-m", f"benchmarks.throughput.{name}", "--tiny", "--rounds", "1"]
    subprocess.run([*command, "--output", str(tmp_path)], cwd=sides.ROOT, check=True, timeout=900)
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert {"versions", "hardware", "load at the end"} <= found.keys()
    assert len(goals.GOALS[name](found)) == LINES[name]
    assert (tmp_path / f"{name}.md").read_text().count("\n| ") >= 2


@pytest.mark.slow
def test_the_workers_of_a_run_train_on_examples() -> None:
    """The side of continual, without TRL: the first token of an example is read and not trained."""
    numbers = sides.in_process("benchmarks.throughput.examples", "--tiny", "--side", examples.CONTINUAL)
    assert 0 < numbers["useful"] < numbers["rate"]
