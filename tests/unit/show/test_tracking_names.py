"""Names, parameters and numbers as MLflow takes them."""

import subprocess
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from continual.forgetting import Score
from continual.show.tracking import (
    clean,
    flatten,
    git_state,
    sequence_metrics,
    stage_metrics,
)  # fmt: skip
from continual.show.tracking.names import drift_metrics

NAMES = st.text(max_size=300) | st.text("./, :a", max_size=9)


@settings(deadline=None, max_examples=500)
@given(NAMES)
def test_any_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

    cleaned = clean(name)
    _validate_metric_name(cleaned)
    _validate_length_limit("Metric name", 250, cleaned)
    assert clean(cleaned) == cleaned


def test_names_keep_what_they_can() -> None:
    assert clean("loss/task-1.x") == "loss/task-1.x"
    assert clean("acc,none") == "acc:none"
    assert clean("../a=b//c") == "a_b/c"
    assert clean("") == "_"
    assert clean("..0") == "__0"
    assert clean("a" * 300) != clean("a" * 301)


def test_a_configuration_becomes_flat_parameters() -> None:
    nested = {"a": {"b": 1.5, "c": None}, "m": [{"w": True}, {"w": "x"}], "l": [1, 2], "e": {}, "s": "text"}
    assert flatten(nested) == {
        "a.b": "1.5", "a.c": "null", "m.0.w": "true", "m.1.w": "x", "l": "[1, 2]", "e": "{}", "s": "text",
    }  # fmt: skip


def test_a_line_of_metrics_becomes_named_numbers() -> None:
    record = {
        "step": 3, "loss": {"task": 1.5, "context_free": 0.5}, "weight": {"task": 1}, "tokens": 100, "task_tokens": 80,
        "seconds": 0.5, "data_wait": 0.1, "learning_rate": 1e-3, "gradient_norm": None, "rows": {"task": "abc"},
        "drift": {"context_free": 0.01}, "drift_stderr": {"context_free": 0.002},
    }  # fmt: skip
    assert stage_metrics(record) == {
        "loss/task": 1.5, "loss/context_free": 0.5, "weight/task": 1.0, "drift/context_free": 0.01,
        "stderr/drift/context_free": 0.002, "learning_rate": 1e-3, "tokens_per_second": 200.0,
        "data_wait_fraction": 0.2,
    }  # fmt: skip
    assert stage_metrics({**record, "evaluation_wait": 0.3})["evaluation_wait_fraction"] == 0.6


def test_figures_and_scores_become_named_numbers() -> None:
    figures = {
        "stage": 1, "name": "one", "forgetting": 0.1, "forgetting_old": None,
        "forgetting_by_task": {"a": 0.1, "b": None}, "stderr": {"forgetting": 0.02, "forgetting_by_task": {"a": 0.03}},
    }  # fmt: skip
    drifted = Score(1, drift=0.2, drift_stderr=0.05, drift_stage=0.1)
    assert sequence_metrics(figures, {"a": Score(0.9, 0.01, 5), "b": drifted}) == {
        "forgetting": 0.1, "forgetting/a": 0.1, "stderr/forgetting": 0.02, "stderr/forgetting/a": 0.03,
        "score/a": 0.9, "stderr/score/a": 0.01, "score/b": 1.0, "drift/b": 0.2, "stderr/drift/b": 0.05,
        "drift_stage/b": 0.1,
    }  # fmt: skip


def test_a_drift_has_a_name_by_the_model_that_it_is_measured_from() -> None:
    both = Score(-2, drift=0.2, drift_stderr=0.05, drift_stage=0.1, drift_stage_stderr=0.02)
    assert drift_metrics({"b": both, "a": Score(0.5, 0.1)}) == {
        "drift/b": 0.2, "stderr/drift/b": 0.05, "drift_stage/b": 0.1, "stderr/drift_stage/b": 0.02,
    }  # fmt: skip


def test_the_ends_of_an_interval_become_two_numbers() -> None:
    by_task = {"a": [-0.5, 0.5], "b": None}
    figures = {"fell": ["a", "b"], "interval": {"forgetting": [0.1, 0.3], "forgetting_by_task": by_task}}
    assert sequence_metrics(figures, {}) == {
        "uncertainty/forgetting/lower": 0.1, "uncertainty/forgetting/upper": 0.3,
        "uncertainty/forgetting/a/lower": -0.5, "uncertainty/forgetting/a/upper": 0.5,
    }  # fmt: skip


def test_the_git_state_never_fails(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {}
    assert git_state(tmp_path / "missing") == {}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "first"]):
        (tmp_path / "file").write_text("a")
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "file").write_text("b")
    assert git_state(tmp_path)["dirty"] is True
