"""The check of units before a start agrees with the check of the scores: one rule, in evaluation.names."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from continual.config.load import load_sequence
from continual.config.schema import EvaluationTask
from continual.errors import ConfigurationError
from continual.evaluation.names import ACCURACY, PREFERRED, TEXT_UNIT, unit
from continual.forgetting import check_units as check_scores
from continual.preflight.check import check
from continual.preflight.check_evaluation import check_units
from tests.kits.project import write_yaml

KNOWN = [*ACCURACY, *PREFERRED, "brier_score", "chrf", "ter", "word_perplexity", "bits_per_byte", "prompt_level_acc"]
metrics = st.sampled_from(sorted({*KNOWN})) | st.from_regex(r"[a-z_@0-9]{1,12}", fullmatch=True)


def accepts(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except ConfigurationError:
        return False
    return True


@given(named=st.lists(metrics, min_size=1, max_size=4), texts=st.integers(0, 1))
def test_what_the_check_accepts_has_a_mean_and_the_other_way_round(named: list[str], texts: int) -> None:
    tasks = [EvaluationTask(name=f"task{number}", metric=metric) for number, metric in enumerate(named)]
    tasks += [EvaluationTask(name="text")] * texts
    units = {task.name: unit(task.metric) if task.metric else TEXT_UNIT for task in tasks}
    before = accepts(check_units, [("stages.0.tasks", task) for task in tasks], {"text"})
    assert before == accepts(check_scores, [list(units)], [], units)
    assert before == accepts(check_scores, [], list(units), units)


@pytest.mark.parametrize("other", ["mcc", "brier_score", "bleu", "f1_macro"])
def test_accuracy_has_no_mean_with(other: str) -> None:
    tasks = [EvaluationTask(name="a", metric="acc"), EvaluationTask(name="b", metric=other)]
    with pytest.raises(ConfigurationError, match=f"`b` is scored in {other} and `a` in accuracy") as raised:
        check_units([("stages.0.tasks", tasks[0]), ("stages.1.tasks", tasks[1])])
    assert raised.value.key == "stages.1.tasks"


def test_a_task_without_a_metric_is_left_to_lm_eval() -> None:
    check_units([("key", EvaluationTask(name="a", metric="acc")), ("key", EvaluationTask(name="b"))])


def task(name: str, **more: Any) -> str:
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "qa.jsonl"}}, "test_split": "test"}
    return yaml.safe_dump({"task": name, **data, "output_type": "multiple_choice", "doc_to_text": "", **more})


def metric_list(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


@pytest.fixture
def tasks(project: Path) -> Path:
    folder = project / "tasks"
    folder.mkdir()
    (folder / "bare.yaml").write_text(yaml.safe_dump({"group": "bare", "task": ["arc_easy", "odd"]}))
    (folder / "odd.yaml").write_text(task("odd", metric_list=metric_list("brier_score", "likelihood")))
    (folder / "code.yaml").write_text(task("code") + "process_results: !function code.f\n")
    (folder / "code.py").write_text("def f(doc, results): return {}\n")
    return folder


@pytest.mark.parametrize(
    ("asked", "key", "words"),
    [
        ("bare", "evaluate.old_tasks.0", "list its members instead: arc_easy, odd"),
        ("arc_easy, bare", "evaluate.old_tasks.1", "measured by `arc_easy` and by `bare`"),
        ("odd", "evaluate.old_tasks.0", "brier_score (filter none), likelihood (filter none)"),
        ("{name: odd, metric: acc}", "evaluate.old_tasks.0", "has no metric `acc`"),
        ("{name: arc_easy, metric: 'acc,strict-match'}", "evaluate.old_tasks.0", "has no filter `strict-match`"),
        ("arc_easy, cola", "evaluate.old_tasks", "scored in mcc and `arc_easy` in accuracy"),
        ("gsm8k, {name: odd, metric: likelihood}", "evaluate.old_tasks", "in likelihood and `gsm8k` in accuracy"),
        ("ai2_arc, arc_easy", "evaluate.old_tasks.2", "`arc_easy` is measured at evaluate.old_tasks.1 already"),
    ],
)
def test_what_lm_eval_would_refuse_after_scoring_is_refused_now(tasks: Path, asked: str, key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check(load_sequence("seq.yaml", [f"evaluate.include_path={tasks}", f"evaluate.old_tasks=[{asked}]"]))
    assert raised.value.key == key
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "asked",
    ["ai2_arc", "mmlu", "{name: gsm8k, metric: 'exact_match,strict-match'}", "{name: ai2_arc, metric: acc_norm}",
     "{name: odd, metric: 'likelihood,none'}"],
)  # fmt: skip
def test_what_lm_eval_reports_is_accepted(tasks: Path, asked: str) -> None:
    loaded = load_sequence("seq.yaml", [f"evaluate.include_path={tasks}", f"evaluate.old_tasks=[{asked}]"])
    notes = check(loaded)
    assert any("is a tag: its tasks are arc_challenge, arc_easy" in note for note in notes) == ("ai2_arc" in asked)
    names = [task.name for task in loaded.sequence.evaluate.old_tasks]
    assert names == (["arc_challenge", "arc_easy"] if "ai2_arc" in asked else names[:1])
    # What is written into the run's folder is the same sequence.
    write_yaml(tasks.parent, loaded.resolved)
    assert load_sequence("seq.yaml").resolved == loaded.resolved


def test_what_only_the_run_can_know_is_noted(tasks: Path) -> None:
    notes = check(load_sequence("seq.yaml", [f"evaluate.include_path={tasks}", "evaluate.old_tasks=[code, arc_easy]"]))
    told = "Python of the task decides what lm-eval reports for code: it is checked when the start model is scored"
    assert told in notes


def test_data_that_cannot_be_fetched_are_noted(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def notes() -> list[str]:
        return [
            note for note in check(load_sequence("seq.yaml", ["evaluate.old_tasks=[ai2_arc]"])) if "cache lacks" in note
        ]

    monkeypatch.setenv("HF_HOME", str(tasks / "cache"))
    told = "HF_HUB_OFFLINE is set, and the cache lacks data that evaluation reads: allenai/ai2_arc"
    assert notes() == [told]
    (tasks / "cache/hub/datasets--allenai--ai2_arc/snapshots").mkdir(parents=True)
    assert notes() == [told]  # `datasets` reads nothing that is only fetched
    (tasks / "cache/datasets/allenai___ai2_arc/ARC-Easy/0.0.0/hash").mkdir(parents=True)
    assert notes() == []
    monkeypatch.setenv("HF_HOME", str(tasks / "other"))
    assert notes() == [told]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert notes() == []
