"""A plan says what a run would say: of a changed configuration, of another version, of a run that is running."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from continual.cli.run import main
from continual.config.load import load_sequence
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import FORMAT, Ledger
from continual.models.files import model_hash
from continual.preflight.plan import make_plan
from continual.preflight.render import render
from continual.run.found import same_start
from continual.run.resume import claim
from continual.store import Store
from continual.store.lock import FileLock, owner_of
from tests.conftest import ROOT


@pytest.fixture
def begun(project: Path) -> RunFolder:
    loaded = load_sequence("seq.yaml")
    with claim(loaded.run_folder, loaded, fresh=False) as ledger:
        ledger.run_id()
        ledger.add("prepared", stage=1, samples=[], steps=10)
    return RunFolder(loaded.run_folder)


def test_the_plan_of_a_changed_configuration_ends_as_the_run(
    begun: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = ["seq.yaml", "train.learning_rate=1e-3"]
    assert main([*changed, "--plan"]) == 2
    plan = capsys.readouterr()
    assert "begun with another configuration, cannot be resumed like this" in plan.out
    assert "1 one" in plan.out
    loaded = load_sequence("seq.yaml", changed[1:])
    with pytest.raises(ConfigurationError) as raised, claim(begun.path, loaded, fresh=False):
        pass
    assert plan.err == f"error: {raised.value}\n"
    assert "was begun with other values of train.learning_rate" in plan.err


def test_the_plan_of_another_versions_run_ends_as_the_run(begun: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    lines = begun.ledger.read_text().splitlines()
    begun.ledger.write_text("\n".join([json.dumps({**json.loads(lines[0]), "format": FORMAT + 1}), *lines[1:]]) + "\n")
    assert main(["seq.yaml", "--plan"]) == 2
    assert "was begun by another version" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--fresh", "train.learning_rate=1e-3"], ["train.micro_rows=1"]])
def test_what_would_run_is_planned(begun: RunFolder, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(begun.path.rglob("*"))
    assert main(["seq.yaml", "--plan", *more]) == 0
    assert capsys.readouterr().err == ""
    assert sorted(begun.path.rglob("*")) == before


def test_a_run_that_is_running_is_called_so(begun: RunFolder) -> None:
    loaded = load_sequence("seq.yaml")
    assert make_plan(loaded).status == "begun"
    with Ledger(begun.path):
        assert render(make_plan(loaded)).startswith("tiny (seq.yaml): is running (process ")
        assert make_plan(loaded, held=True).status == "begun"
    assert make_plan(loaded).status == "begun"


def test_who_holds_a_lock_is_found_without_a_trace(tmp_path: Path) -> None:
    assert owner_of(tmp_path / "lock") is None
    assert not (tmp_path / "lock").exists()
    with FileLock(tmp_path / "lock"):
        text = (tmp_path / "lock").read_text()
        assert owner_of(tmp_path / "lock") == text
        assert (tmp_path / "lock").read_text() == text
    assert owner_of(tmp_path / "lock") is None


def test_the_plan_says_how_often_rows_are_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seq.yaml", "--plan"]) == 0
    rows = make_plan(load_sequence("seq.yaml")).stages[0].rows
    assert rows
    assert f"one: ~{rows} rows, 80 wanted: each ~{80 / rows:.3g} times" in capsys.readouterr().out


def test_the_plan_tells_the_mistakes_of_all_parts_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["stages.0.data.path=nowhere.jsonl", "stages.1.start_token=<none>", "train.workers=99"]
    assert main(["seq.yaml", *changes, "--plan"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(key in said for key in ("train.workers", "stages.0.data", "stages.1.start_token"))


def test_the_plan_of_changed_start_weights_ends_as_the_run(
    begun: RunFolder, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, model = Store(project / "runs" / "store"), project / "model"
    with Ledger(begun.path) as ledger:
        ledger.add("start_model", path=str(model), hash=model_hash(model))
    assert main(["seq.yaml", "--plan"]) == 0
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1] + b"\x01")
    capsys.readouterr()
    assert main(["seq.yaml", "--plan"]) == 2
    said = capsys.readouterr().err
    with pytest.raises(ConfigurationError) as raised:
        same_start(load_sequence("seq.yaml").sequence, store, ModelRef(str(model), ledger.events[-1]["hash"]))
    assert said == f"error: seq.yaml: {raised.value}\n"
    assert main(["seq.yaml", "--plan", "--fresh"]) == 0


def test_the_plan_of_a_begun_run_starts_no_ray(begun: RunFolder, project: Path) -> None:
    with Ledger(begun.path) as ledger:
        ledger.add("start_model", path=str(project / "model"), hash=model_hash(project / "model"))
    code = (
        "import sys; from continual.config.load import load_sequence; from continual.run.found import foreseen\n"
        "print(foreseen(load_sequence('seq.yaml')), 'ray' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[] False\n"
