"""A package from outside the repository brings a mitigation by entry point; its user names it in the YAML."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e import command

pytestmark = pytest.mark.slow

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "fading"
version = "1.0"

[project.entry-points."continual.mitigations"]
fading = "fading:Fading"

[tool.setuptools]
py-modules = ["fading"]
"""

MODULE = '''
from typing import ClassVar, Literal

import numpy as np

from continual.data.rows import RowReader, row_facts, rows_table
from continual.contract.mitigation import Mitigation, Stream
from continual.contract.registry import LOSSES


class Fading(Mitigation):
    """Holds on to the first rows of the task before, more loosely with every measurement."""

    source: ClassVar[str] = "a test's own invention"
    control_every: ClassVar[int] = 3

    type: Literal["fading"] = "fading"
    rows: int = 12
    share: float = 0.25
    factor: float = 0.5

    def active(self, sequence, stage):
        return stage > 1

    def prepare(self, ctx):
        inputs = {"fading": ctx.earlier[-1].rows.hash, "rows": self.rows}
        artefact = ctx.store.artefact("rows", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                rows = RowReader(ctx.earlier[-1].rows).take(np.arange(self.rows))
                writer.put(0, rows_table(rows), **row_facts(rows))
                writer.finish()
        return {"rows": artefact}

    def streams(self, ctx, artefacts):
        kl = LOSSES.load("kl")()
        return [Stream(self.label, artefacts["rows"], kl, teacher=ctx.stage_start, ratio=self.share, held_out=4)]

    def control(self, state, measured):
        if f"drift/{self.label}" not in measured:
            raise ValueError(f"nothing was measured: {measured}")
        count = state.get("count", 0) + 1
        return {"count": count}, {self.label: self.factor**count}
'''

STEPS, EVERY, FACTOR = 20, 3, 0.75
SEQUENCE = {
    "name": "outside",
    "model": {
        "type": "python",
        "build": "benchmarks.arithmetic.model:build",
        "tokenizer": "benchmarks.arithmetic.tokenizer:build",
    },
    "stages": [
        {
            "name": task,
            "data": {
                "type": "python",
                "rows": "benchmarks.arithmetic.tasks:rows",
                "arguments": {"task": task, "count": 512},
            },
            "steps": steps,
        }
        for task, steps in (("reversal", 4), ("sort", STEPS))
    ],
    "mitigation": [{"type": "fading", "factor": FACTOR}],
    "train": {"learning_rate": 1e-3, "batch_tokens": 448, "row_tokens": 56, "checkpoint_every": 4},
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which pip has installed the package, on the PYTHONPATH of what the test starts."""
    source, target = tmp_path / "fading-1.0", tmp_path / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "fading.py").write_text(MODULE)
    offline = ["--disable-pip-version-check", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, source], check=True)
    assert not target.is_relative_to(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(target))
    return target


def test_it_is_listed_runs_from_yaml_and_goes_on_after_a_kill(installed: Path, tmp_path: Path) -> None:
    sequence = tmp_path / "outside.yaml"
    sequence.write_text(yaml.safe_dump(SEQUENCE))
    listed = subprocess.run(
        [sys.executable, "-m", "continual.run", "--list", "mitigations"],
        cwd=ROOT, env=command.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "fading" in listed.stdout
    assert "a test's own invention" in listed.stdout

    storage = tmp_path / "runs"
    driver = command.start(storage, yaml=sequence)
    driver.wait_for(lambda: command.steps_done(storage, "2-sort", "outside") >= 7)
    driver.kill()
    assert len(command.events(storage, "stage_done", "outside")) == 1
    assert list((storage / "outside" / "stages" / "2-sort" / "checkpoints").glob("step-*")), "it goes on from there"
    finished = command.run(storage, yaml=sequence)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    made = [path.parent for path in (storage / "store" / "rows").glob("*/inputs.json") if "fading" in path.read_text()]
    [manifest] = [json.loads((folder / "manifest.json").read_text()) for folder in made]
    first, _ = command.events(storage, "stage_done", "outside")
    assert manifest["inputs"] == {"fading": first["rows"], "rows": 12}
    assert manifest["counts"]["rows"] == 12

    assert all(list(record["loss"]) == ["task"] for record in command.records(storage, "1-reversal", "outside"))
    records = command.records(storage, "2-sort", "outside")
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    # 8 rows of the task and a quarter more, 4 documents of 14 tokens in each, whose first is not predicted.
    assert all(record["task_tokens"] == 8 * 4 * 13 and record["tokens"] == 10 * 4 * 13 for record in records)
    assert all(record["loss"]["fading"] > 0 for record in records[1:])
    # Its own count of calls makes the weight: had a resume lost it, the weight would have gone up again.
    assert [record["weight"]["fading"] for record in records] == [FACTOR ** (step // EVERY) for step in range(STEPS)]
    assert [record["step"] for record in records if "drift" in record] == [*range(EVERY, STEPS, EVERY), STEPS]
