"""Numbers that a library would refuse later, names that a file system would, and paths that are none: said at once."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from continual.config.load import load_sequence
from continual.config.paths import resolve_paths
from continual.config.schema import Evaluate, EvaluationTask, Sequence, Stage, Train
from continual.contract.registry import MITIGATIONS
from continual.errors import ConfigurationError
from continual.preflight.check import check
from tests.kits.project import write_yaml

HERE = __name__


def leaves(task: str = "") -> Any:
    raise SystemExit(3)


def refused(*overrides: str, file: str = "seq.yaml") -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        check(load_sequence(file, list(overrides)))
    message = str(raised.value)
    assert "\n" not in message
    assert "\0" not in message
    assert len(message) < 500
    return raised.value


@pytest.mark.parametrize(
    ("override", "key", "fix"),
    [
        # ranges
        ("train.betas=[0.9, 1.5]", "train.betas.1", "less than 1"),
        ("train.betas=[1, 0.9]", "train.betas.0", "less than 1"),
        ("train.betas=[-0.1, 0.9]", "train.betas.0", "at least 0"),
        ("train.betas=[0.9]", "train.betas.1", "at least 2"),
        ("stages.1.epochs=1e308", "stages.1.epochs", "at most 1000000"),
        ("train.batch_tokens=1000000000000000", "train.batch_tokens", "at most 2147483647"),
        ("train.learning_rate=1e300", "train.learning_rate", "at most 3.4e+38"),
        ("train.learning_rate=.nan", "train.learning_rate", "a number"),
        ("train.weight_decay=1e999", "train.weight_decay", "finite"),
        ("seed=4294967296", "seed", "at most 4294967295"),
        ("seed=-1", "seed", "at least 0"),
        ("evaluate.seed=-1", "evaluate.seed", "at least 0"),
        ("evaluate.seed=99999999999", "evaluate.seed", "at most 4294967295"),
        ("mitigation.0.seed=99999999999999999999999", "mitigation.0.seed", "at most 4294967295"),
        ("mitigation.0.top_k=99999999999", "mitigation.0.top_k", "at most 2147483647"),
        ("mitigation.0.top_p=1.1", "mitigation.0.top_p", "at most 1"),
        ("mitigation.0.temperature=0", "mitigation.0.temperature", "greater than 0"),
        ("mitigation.0.ratio=1e9", "mitigation.0.ratio", "at most 1000"),
        ("generate.max_failed=2", "generate.max_failed", "at most 1"),
        ("train.cpus_per_worker=1e-9", "train.cpus_per_worker", "at least 0.0001"),
        ("train.gpus_per_worker=1.5", "train.gpus_per_worker", "a whole number"),
        ("evaluate.gpus=0.00001", "evaluate.gpus", "0 for none"),
        # truth values
        ("stages.0.steps=true", "stages.0.steps", "a whole number"),
        ("train.learning_rate=false", "train.learning_rate", "a number"),
        ("train.betas=[true, 0.9]", "train.betas", "a number"),
        ("mitigation.0.ratio=true", "mitigation.0.ratio", "a number"),
        ("mitigation.0.samples=true", "mitigation.0.samples", "a whole number"),
        # names
        (f"name={'a' * 300}", "name", "at most 128"),
        (f"stages.0.name={'a' * 300}", "stages.0.name", "at most 128"),
        ("name=mlflow.db", "name", "choose another name"),
        ("name=mlflow.db.lock", "name", "choose another name"),
        ("name=mlflow.db-wal", "name", "choose another name"),
        ("name=a.", "name", "end without a dot"),
        ('name="a\\n"', "name", "end without a dot"),
        (f"mitigation.0.name={'a' * 300}", "mitigation.0.name", "another `name:`"),
        # the storage and the tracker
        ('storage="a\\0b"', "storage", "without it"),
        (f"storage={'a/' * 3000}", "storage", "at most 3,000"),
        (f"storage={'a' * 300}", "storage", "255 per folder"),
        ("track.uri=nonsense://x", "track.uri", "sqlite:///<file>"),
        ("track.uri=sqlit:///x", "track.uri", "did you mean `sqlite:`?"),
        # engine arguments
        ("generate={engine: vllm, engine_arguments: {max_model_len: 5}}", "generate.engine_arguments.max_model_len",
         "remove it"),
        ("generate={engine: vllm, engine_arguments: {seed: 5}}", "generate.engine_arguments.seed", "remove it"),
        # workers
        ("train.workers=4", "train.workers", "at most 2, or `train.cpus_per_worker: 0.25`"),
        ("train.workers=3", "train.workers", "at most 2, or `train.cpus_per_worker: 0.33`"),
        # usual names
        ("train.lr=1", "train.lr", "did you mean `learning_rate`?"),
        ("train.per_device_train_batch_size=1", "train.per_device_train_batch_size", "did you mean `micro_rows`?"),
        ("lr=1", "lr", "did you mean `train.learning_rate`?"),
        ("model.model_name_or_path=x", "model.model_name_or_path", "did you mean `source`?"),
        ("stages.0.num_train_epochs=3", "stages.0.num_train_epochs", "did you mean `epochs`?"),
        # a missing key
        ("mitigation=[{type: pretraining_subset}]", "mitigation.0.data", "add `data:` (the text: a source as in"),
        # the user's Python
        (f"stages.0.data={{type: python, function: '{HERE}:leaves'}}", "stages.0.data.function", "correct the"),
    ],
)  # fmt: skip
def test_what_a_library_would_refuse_later_is_refused_now(project: Path, override: str, key: str, fix: str) -> None:
    error = refused(override)
    assert error.key == key
    assert fix in error.fix, str(error)


def test_one_more_error_is_called_so(project: Path) -> None:
    assert str(refused("train.workers=x", "seed=y")).endswith(
        "(and 1 more error: train.workers: 'x' is of the wrong type)"
    )


@given(value=st.integers() | st.floats())
def test_no_beta_outside_of_0_to_1_is_taken(value: float) -> None:
    fine = 0 <= value < 1
    try:
        assert Train(betas=(0.9, value)).betas[1] == value
        assert fine
    except ValidationError:
        assert not fine


@pytest.mark.parametrize("model", [Sequence, Stage, Train, Evaluate, *map(MITIGATIONS.load, MITIGATIONS.names())])
def test_no_number_is_a_truth_value_or_without_end(model: Any) -> None:
    checked = 0
    for name, field in model.model_fields.items():
        if "int" not in str(field.annotation) and "float" not in str(field.annotation):
            continue
        for value in (True, math.nan, math.inf, 10**30 if "int" in str(field.annotation) else 1e300):
            with pytest.raises(ValidationError) as raised:
                model.model_validate({name: value})
            assert any(error["loc"][0] == name for error in raised.value.errors()), (name, value)
            checked += 1
    assert checked or not any("int" in str(field.annotation) for field in model.model_fields.values())


def test_a_larger_bound_of_ones_own_holds() -> None:
    from pydantic import Field

    from continual.contract.base import Strict

    class Bytes(Strict):
        size: int = Field(0, le=1 << 40)

    assert Bytes(size=1 << 40).size == 1 << 40
    with pytest.raises(ValidationError):
        Bytes(size=(1 << 40) + 1)


@pytest.mark.parametrize(
    ("written", "metric", "filter"),
    [
        ({"metric": "acc,none"}, "acc", "none"),
        ({"metric": "exact_match,strict-match"}, "exact_match", "strict-match"),
        ({"metric": "acc, none", "filter": "none"}, "acc", "none"),
        ({"metric": "acc"}, "acc", None),
    ],
)
def test_a_metric_as_lm_eval_prints_it(written: dict[str, str], metric: str, filter: str | None) -> None:
    task = EvaluationTask.model_validate({"name": "a", **written})
    assert (task.metric, task.filter) == (metric, filter)


def test_a_metric_with_two_filters_is_refused(project: Path) -> None:
    error = refused("evaluate.old_tasks=[{name: arc_easy, metric: 'acc,none', filter: other}]")
    assert "`acc,none` names a metric and a filter" in error.problem


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a0: &a0 [lol]\n" + LAUGHS, "expand to more than 200,000 values"),
        ("name: " + "[" * 100_000, "nested too deep"),
        ("seed: " + "9" * 5000, "a number of 5,000 characters"),
        ("seed: 1." + "9" * 5000, "a number of 5,002 characters"),
        ("model: null\nname: a\n", "null is of the wrong type; write a mapping"),
    ],
)
def test_a_yaml_that_explodes_is_refused_at_once(project: Path, text: str, words: str) -> None:
    write_yaml(project, text)
    begun = time.process_time()
    with pytest.raises(ConfigurationError) as raised:
        load_sequence("seq.yaml")
    assert time.process_time() - begun < 5
    assert len(str(raised.value)) < 500
    assert words in str(raised.value)


def test_a_long_override_is_shortened_in_messages(project: Path) -> None:
    for override in (f"seed={'9' * 5000}", f"seed={'9' * 390}", f"train={'[' * 5000}"):
        assert len(str(refused(override))) < 500


def test_ordinary_anchors_are_read(project: Path) -> None:
    raw = yaml.safe_load(Path("seq.yaml").read_text())
    text = yaml.safe_dump(raw) + "x-unused: 1\n"
    assert refused_key(project, text) == "x-unused"


def refused_key(project: Path, text: str) -> str:
    write_yaml(project, text)
    return refused().key


@pytest.mark.parametrize(
    "source", ["models/x", "./x", "models/deeper/x", "/nowhere/x", "~nobody/x", "my model", "a--b"]
)
def test_a_mistyped_path_is_no_hub_id(project: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(project / "cache"))
    (project / "models").mkdir()
    for override in (f"model.source={source}", f"stages.0.data={{type: hub, path: '{source}', text: t}}"):
        error = refused(override)
        assert error.problem.startswith("there is no "), str(error)
        assert "hub" in error.fix
        assert "on the command line in the current one" in error.fix


def test_both_readings_of_a_mistyped_path_are_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(project / "hub"))
    (project / "models").mkdir()
    error = refused("model.source=models/x")
    assert error.problem == f"there is no `x` in the folder {project}/models"
    assert error.fix.endswith("if you mean `models/x` of the hub, fetch it first: hf download models/x")
    # What the cache has is meant.
    (project / "hub" / "models--models--x").mkdir(parents=True)
    assert load_sequence("seq.yaml", ["model.source=models/x"]).sequence.model.source == "models/x"


def test_an_include_path_on_the_command_line_lies_in_the_current_folder(project: Path) -> None:
    error = refused("evaluate.include_path=nowhere")
    assert error.problem == f"there is no folder {project}/nowhere"
    assert "on the command line in the current one" in error.fix


@pytest.mark.parametrize("path", ["x" * 300, "y/" * 2100, "x" * 5000 + "/*.jsonl"])
@pytest.mark.parametrize("key", ["stages.0.data.path", "model.source", "model.tokenizer", "evaluate.include_path"])
def test_a_path_that_the_system_refuses_is_one_sentence(project: Path, key: str, path: str) -> None:
    error = refused(f"{key}={path}")
    assert error.key == key
    assert "cannot be looked for (file name too long)" in error.problem
    assert len(str(error)) <= 300


def test_a_path_behind_a_closed_folder_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, who runs the tests somewhere, no folder is closed."""

    def stat(path: Path, **options: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(ConfigurationError, match=r"stages\.0\.data\.path: .* cannot be looked for \(permission denied"):
        resolve_paths({"stages": [{"data": {"type": "jsonl", "path": "closed/qa.jsonl"}}]}, project)


@pytest.mark.parametrize("key", ["stages.0.data.path", "model.source", "storage"])
def test_the_home_of_nobody_is_a_name_like_another(project: Path, key: str) -> None:
    if key == "storage":
        assert load_sequence("seq.yaml", ["storage=~nobody-here/x"]).sequence.storage == f"{project}/~nobody-here/x"
    else:
        assert f"{project}/~nobody-here" in str(refused(f"{key}=~nobody-here/x"))
