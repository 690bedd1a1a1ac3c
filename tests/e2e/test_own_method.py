"""The manual's own method, data source and loss: written to files as the page shows them, and run as it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arithmetic.tasks import document
from tests.conftest import ROOT
from tests.e2e import command
from tests.kits.pages import blocks

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/your-own-method.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's modules, its sequence and the file that the sequence names."""
    for block in blocks(PAGE, "python"):
        (tmp_path / block.text.splitlines()[0].removeprefix("# ")).write_text(block.text)
    [sequence] = blocks(PAGE, "yaml")
    (tmp_path / "own.yaml").write_text(sequence.text)
    pairs = [document("sort", number, 3) for number in range(256)]
    records = [f"question: {question}\nanswer: {answer}" for question, answer in pairs]
    (tmp_path / "sort.txt").write_text("\n\n".join(records))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_plan_knows_the_method(folder: Path) -> None:
    plan = [sys.executable, "-m", "continual.run", str(folder / "own.yaml"), "--plan"]
    finished = subprocess.run(plan, cwd=ROOT, env=command.environment(), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "Surprise" in finished.stdout


def test_they_run(folder: Path) -> None:
    storage = folder / "runs"
    finished = command.run(storage, yaml=folder / "own.yaml")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert all(list(record["loss"]) == ["task"] for record in command.records(storage, "1-reversal", "own"))
    records = command.records(storage, "2-sort", "own")
    assert len(records) == 4
    assert all(record["loss"]["Surprise"] > 0 for record in records)
    # 8 rows of the task: 4 documents in each, with 4 digits and an end token to learn. A quarter more rows of replay: 4
    # documents of 14 tokens in each, whose first is not predicted.
    assert {record["task_tokens"] for record in records} == {8 * 4 * 5}
    assert {record["tokens"] for record in records} == {8 * 4 * 5 + 2 * 4 * 13}


def test_it_passes_the_conformance_suite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "test_surprise.py"],
        cwd=folder, env=command.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-3000:]
