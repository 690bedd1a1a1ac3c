"""A package from outside brings a mitigation, a data source and a loss by entry point; one YAML names all three."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.arithmetic.tasks import rows
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

[project.entry-points."continual.sources"]
lines = "fading:Lines"

[project.entry-points."continual.losses"]
shifted = "fading:Shifted"

[tool.setuptools]
py-modules = ["fading"]
"""

MODULE = '''
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.api import LOSSES, ConfigurationError, Loss, LossName, Mitigation, RowReader, Source, Stream
from continual.api import digest, row_facts, rows_table


class Lines(Source):
    """A file with a document of running text in every line."""

    path_options: ClassVar[dict[str, bool]] = {"path": False}

    type: Literal["lines"] = "lines"
    path: str = Field(description="the file")

    def files(self):
        return [Path(self.path)]

    def parts(self):
        if not Path(self.path).is_file():
            raise ConfigurationError("path", f"there is no file {self.path}", "correct the path")
        return [self.path]

    def read(self, part):
        for number, line in enumerate(Path(part).read_text().splitlines(), 1):
            yield f"line {number}", {"text": line}

    def count(self):
        return sum(1 for _ in self.read(self.path))

    def identity(self):
        return {**self.model_dump(exclude={"path"}), "content": digest(Path(self.path).read_text())}


class Shifted(Loss):
    """KL(model || teacher), and one nat for nothing, by which it is recognized."""

    name: ClassVar[str] = "shifted"
    teacher: ClassVar[bool] = True

    def sum(self, inputs):
        log_q, log_p = (logits.float().log_softmax(-1) for logits in (inputs.logits, inputs.teacher_logits))
        return (inputs.weights * (1 + (log_q.exp() * (log_q - log_p)).sum(-1))).sum()


class Fading(Mitigation):
    """Holds on to the first rows of the task before, more loosely with every measurement."""

    reference: ClassVar[str] = "a test's own invention"
    control_every: ClassVar[int] = 3

    type: Literal["fading"] = "fading"
    rows: int = Field(12, description="rows to hold on to")
    ratio: float = Field(0.25, description="their tokens per task token")
    weight: float = Field(1.0, description="of the rows at first")
    factor: float = Field(0.5, description="multiplies the weight with every measurement")
    loss: LossName = Field("kl", description="against the model before the stage")

    def active(self, view):
        return view.number > 1

    def replay_ratio(self):
        return self.ratio

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
        loss = LOSSES.load(self.loss)()
        start = {"coefficient": self.weight, "ratio": self.ratio, "held_out": 4}
        return [Stream(self.label, artefacts["rows"], loss, teacher=ctx.stage_start, **start)]

    def control(self, state, measured):
        if f"drift/{self.label}" not in measured:
            raise ValueError(f"nothing was measured: {measured}")
        count = state.get("count", 0) + 1
        return {"count": count}, {self.label: self.weight * self.factor**count}
'''

CONFORMANCE = """
from continual.testing import MitigationConformance


class TestFading(MitigationConformance):
    options = {"type": "fading", "loss": "shifted"}
    zero = {"weight": 0.0}
"""

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
            "name": "reversal",
            "data": {
                "type": "python",
                "function": "benchmarks.arithmetic.tasks:rows",
                "arguments": {"task": "reversal", "count": 512},
            },
            "steps": 4,
        },
        {"name": "sort", "data": {"type": "lines", "path": "sort.txt", "text": "text"}, "steps": STEPS},
    ],
    "mitigation": [{"type": "fading", "factor": FACTOR, "loss": "shifted"}],
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


def test_all_three_run_from_one_yaml_and_resume_after_a_kill(installed: Path, tmp_path: Path) -> None:
    sequence = tmp_path / "outside.yaml"
    sequence.write_text(yaml.safe_dump(SEQUENCE))
    (tmp_path / "sort.txt").write_text("".join(row["text"] + "\n" for row in rows(task="sort", count=512)))
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
    assert list((storage / "outside" / "stages" / "2-sort" / "checkpoints").glob("step-*")), "it resumes from there"
    finished = command.run(storage, yaml=sequence)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    made = [path.parent for path in (storage / "store" / "rows").glob("*/inputs.json") if "fading" in path.read_text()]
    [manifest] = [json.loads((folder / "manifest.json").read_text()) for folder in made]
    first, second = command.events(storage, "stage_done", "outside")
    assert manifest["inputs"] == {"fading": first["rows"], "rows": 12}
    assert manifest["counts"]["rows"] == 12
    made_of_lines = json.loads((storage / "store" / "rows" / second["rows"] / "manifest.json").read_text())
    assert made_of_lines["source"]["type"] == "lines"

    assert all(list(record["loss"]) == ["task"] for record in command.records(storage, "1-reversal", "outside"))
    records = command.records(storage, "2-sort", "outside")
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    # 8 rows of the task and a quarter more, 4 documents of 14 tokens in each, whose first is not predicted.
    assert all(record["task_tokens"] == 8 * 4 * 13 and record["tokens"] == 10 * 4 * 13 for record in records)
    # The loss's own nat in front of a divergence, which begins at 0.
    assert records[0]["loss"]["fading"] == pytest.approx(1.0, abs=1e-5)
    assert all(record["loss"]["fading"] > 1.0 for record in records[5:])
    # Its own count of calls makes the weight: had a resume lost it, the weight would have risen again.
    assert [record["weight"]["fading"] for record in records] == [FACTOR ** (step // EVERY) for step in range(STEPS)]
    assert [record["step"] for record in records if "drift" in record] == [*range(EVERY, STEPS, EVERY), STEPS]


def test_it_passes_the_conformance_suite(installed: Path, tmp_path: Path) -> None:
    """As its author runs it: in a test file of the package's own."""
    file = tmp_path / "test_fading.py"
    file.write_text(CONFORMANCE)
    environment = command.environment() | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, file],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-3000:]
    assert "8 passed, 1 skipped" in tested.stdout
