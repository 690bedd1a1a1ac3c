"""Fields of a task's YAML that lm-eval would fail on in the run are refused before it, with the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from continual.errors import ConfigurationError
from continual.evaluation.predict import predict

GOOD: dict[str, Any] = {
    "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "data.jsonl"}}, "test_split": "test",
    "output_type": "generate_until", "doc_to_text": "question", "doc_to_target": "{{answer}}",
}  # fmt: skip


def metrics(**entry: Any) -> dict[str, Any]:
    return {"metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True} | entry]}


def regex(pattern: str) -> dict[str, Any]:
    return {"filter_list": [{"name": "a", "filter": [{"function": "regex", "regex_pattern": pattern}]}]}


def ask(folder: Path, name: str = "own", **tasks: dict[str, Any]) -> None:
    (folder / "data.jsonl").write_text(json.dumps({"question": "one", "answer": "two"}) + "\n")
    for task, content in tasks.items():
        (folder / f"{task}.yaml").write_text(yaml.safe_dump({"task": task} | content))
    predict({name: "evaluate.old_tasks.0"}, str(folder))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "metric_list is text": ({"metric_list": "exact_match"}, "`metric_list: exact_match` is not a list"),
    "metrics are texts": ({"metric_list": ["exact_match"]}, "`exact_match` in `metric_list` names no metric"),
    "filter_list is text": ({"filter_list": "take_first"}, "`filter_list: take_first` is not a list"),
    "doc_to_text": ({"doc_to_text": "{{question"}, "`doc_to_text` is not a template"),
    "doc_to_target": ({"doc_to_target": "{% if answer %}"}, "`doc_to_target` is not a template"),
    "doc_to_choice": ({"doc_to_choice": "{{[a, b}}"}, "`doc_to_choice` is not a template"),
    "unknown template filter": ({"doc_to_text": "{{question|upperr}}"}, "upperr"),
    "aggregation": (metrics(aggregation="meen"), "no `aggregation: meen`; did you mean `mean`?"),
    "aggregation is a number": (metrics(aggregation=5), "no `aggregation: 5`"),
    "metric": (metrics(metric="exact_mach"), "no metric `exact_mach`; did you mean `exact_match`?"),
    "metric unlike any": (metrics(metric="zzzz"), "no metric `zzzz`; .*hf_evaluate"),
    "data_dir": ({"dataset_kwargs": {"data_dir": "gone"}}, "there is no folder .*gone"),
    "pattern": (regex("(\\d+"), "a filter of `own` cannot be made"),
    "pattern, repeated": (regex("*"), "a filter of `own` cannot be made"),
    "repeats": ({"repeats": 0}, "`repeats: 0`"),
    "repeats is text": ({"repeats": "two"}, "`repeats: two`"),
    "shots": ({"num_fewshot": -1}, "`num_fewshot: -1`"),
    "shots are no number": ({"num_fewshot": True}, "`num_fewshot: True`"),
    "temperature": ({"generation_kwargs": {"temperature": float("nan")}}, "`temperature: nan`"),
    "answer of no tokens": ({"generation_kwargs": {"max_gen_toks": 0}}, "`max_gen_toks: 0`"),
    "until is a number": ({"generation_kwargs": {"until": 5}}, "`until: 5` is neither"),
    "until holds a number": ({"generation_kwargs": {"until": ["a", 5]}}, "`until: .*` is neither"),
    "until is nothing": ({"generation_kwargs": {"until": None}}, "`until: None` is neither"),
    "a misspelled column": ({"doc_to_text": "questoin"}, "`doc_to_text: questoin`.*did you mean `question`?"),
    "a misspelled target": ({"doc_to_target": "Answer"}, "`doc_to_target: Answer`.*did you mean `answer`?"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_field_that_lm_eval_would_fail_on_is_refused(folder: Path, name: str) -> None:
    change, problem = BAD[name]
    with pytest.raises(ConfigurationError, match=problem) as raised:
        ask(folder, own=GOOD | change)
    assert raised.value.key == "evaluate.old_tasks.0"
    assert f"{folder}/own.yaml" in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {}, metrics(), metrics(metric="wer", hf_evaluate=True), regex("(\\d+)"), {"repeats": 3},
        {"generation_kwargs": {"until": "\n"}}, {"generation_kwargs": {"until": ["\n", "5"]}},
        {"doc_to_text": "{{question}}\n"}, {"doc_to_text": "Translation"}, {"dataset_kwargs": {"data_dir": "."}},
    ],
    ids=str,
)  # fmt: skip
def test_what_lm_eval_reads_is_accepted(folder: Path, change: dict[str, Any]) -> None:
    ask(folder, own=GOOD | change)


def test_groups_without_an_end_or_without_tasks_are_refused(folder: Path) -> None:
    (folder / "empty.yaml").write_text("group: empty\ntask: []\n")
    (folder / "self.yaml").write_text("group: self\ntask: [self]\n")
    (folder / "one.yaml").write_text("group: one\ntask: [two]\n")
    (folder / "two.yaml").write_text("group: two\ntask: [one]\n")
    cases = {"empty": "`empty` has no tasks", "self": "`self` contains itself", "one": "`two` contains itself"}
    for name, problem in cases.items():
        with pytest.raises(ConfigurationError, match=problem):
            ask(folder, name)
