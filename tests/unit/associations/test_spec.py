"""The YAML of associations: a run for each stage alone, and mistakes with key, file and fix."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from continual.associations.spec import load_associate, prepare_sweep
from continual.errors import ConfigurationError
from tests.kits.project import sequence, write_project
from tests.kits.sweep import TASKS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    write_base(tmp_path, mitigation=[])
    return tmp_path


def write_base(folder: Path, **changes: Any) -> None:
    (folder / "seq.yaml").write_text(yaml.safe_dump(sequence(evaluate=TASKS, **changes)))


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "assoc.yaml"
    file.write_text(yaml.safe_dump({"name": "z", "sequence": "seq.yaml", "upstream": "a", **changes}))
    return file


def test_every_stage_is_learned_alone(project: Path) -> None:
    loaded = load_associate(write(project), ["train.micro_rows=2", "concurrency=2"])
    assert loaded.associate.concurrency == loaded.sweep.ablation.concurrency == 2
    trials = prepare_sweep(loaded).listed()
    assert [[stage.name for stage in trial.loaded.sequence.stages] for trial in trials] == [["one"], ["two"]]
    for trial, stage in zip(trials, loaded.base.sequence.stages, strict=True):
        assert trial.loaded.sequence.stages == [stage]
        assert trial.loaded.sequence.train.micro_rows == 2
    assert len({trial.name for trial in trials}) == 2


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"upstream": "aa"}, "upstream", "did you mean `a`?"),
        ({"upstream": "elsewhere"}, "upstream", "add it to the sequence's `evaluate.texts`"),
        ({"upstrem": "a"}, "upstrem", "did you mean `upstream`"),
        ({"probes": 0}, "probes", "at least 1"),
    ],
)
def test_a_mistake_is_named_with_key_and_fix(project: Path, changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_associate(write(project, **changes))
    assert error.value.key == key
    assert words in str(error.value)
    assert str(project / "assoc.yaml") in str(error.value)


def test_one_task_has_no_associations(project: Path) -> None:
    write_base(project, mitigation=[], stages=sequence()["stages"][:1])
    with pytest.raises(ConfigurationError, match="list at least two stages"):
        load_associate(write(project))


def test_a_stage_that_cannot_run_is_named_in_the_sequence(project: Path) -> None:
    stages = sequence()["stages"]
    stages[1]["data"] = {**stages[1]["data"], "path": "nowhere.jsonl"}
    write_base(project, mitigation=[], stages=stages)
    with pytest.raises(ConfigurationError, match=r"nowhere\.jsonl") as error:
        prepare_sweep(load_associate(write(project)))
    assert error.value.key.startswith("stages.")
    assert "seq.yaml" in str(error.value)
    assert "two" in str(error.value)
