"""What is told before a start is what lm-eval reports: both are compared on tasks of every kind."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from continual.errors import ConfigurationError
from continual.evaluation.names import choose, directions
from continual.evaluation.predict import predict

DATA = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "data.jsonl"}}, "test_split": "test"}
CHOICE = {
    **DATA, "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_target": "gold", "doc_to_choice": "{{c}}",
}  # fmt: skip
TEXT = {
    **DATA, "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 2},
}  # fmt: skip


def metric(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True, **more} for name in names]


FILTERS = [
    {"name": "strict", "filter": [{"function": "regex", "regex_pattern": "(.*)"}, {"function": "take_first"}]},
    {"name": "loose", "filter": [{"function": "take_first"}]},
]
TASKS: dict[str, dict[str, Any]] = {
    "plain": CHOICE,
    "norm": {**CHOICE, "metric_list": metric("acc_norm", "acc")},
    "several": {**CHOICE, "metric_list": [*metric("brier_score", aggregation="brier_score"), *metric("acc_bytes")]},
    "exact": TEXT,
    "filtered": {**TEXT, "metric_list": metric("exact_match"), "filter_list": FILTERS},
    "rolling": {**DATA, "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}"},
    "cloze": {**DATA, "output_type": "loglikelihood", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}"},
    "silent": {**CHOICE, "metric_list": metric("bleu", aggregation="bleu")},
    "bare": {"group": "bare", "task": ["bare_one"]},
    "bare_one": CHOICE,
    "mean": {"group": "mean", "task": ["mean_one", "mean_two"], "aggregate_metric_list": [{"metric": "acc"}]},
    "mean_one": CHOICE,
    "mean_two": {**CHOICE, "metric_list": metric("acc"), "filter_list": FILTERS[1:]},
    "outer": {"group": "outer", "task": ["inner", {"group": "written", "task": ["outer_two"]}],
              "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]},
    "inner": {"group": "inner", "task": ["inner_tag"]},
    "outer_one": {**CHOICE, "tag": "inner_tag"},
    "outer_two": CHOICE,
}  # fmt: skip
ASKED = ["plain", "norm", "several", "exact", "filtered", "rolling", "cloze", "silent", "bare", "mean", "outer"]


def write(folder: Path, tasks: dict[str, dict[str, Any]]) -> None:
    (folder / "data.jsonl").write_text(json.dumps({"q": "one two", "a": "three", "c": ["a", "b"], "gold": 1}) + "\n")
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **task}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_prediction_is_what_lm_eval_reports(folder: Path) -> None:
    write(folder, TASKS)
    predicted = predict({name: name for name in ASKED}, str(folder))

    from lm_eval import evaluate
    from lm_eval.models.dummy import DummyLM
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=str(folder), include_defaults=False).load(list(ASKED))
    found: Any = evaluate(lm=DummyLM(), task_dict=loaded, bootstrap_iters=0)
    assert not predicted.uncertain
    assert set(predicted.results) == set(found["results"])
    for name, reported in found["results"].items():
        keys = [key for key in reported if "," in key and "_stderr" not in key]
        assert [key for key in predicted.results[name] if "," in key and "_stderr" not in key] == keys, name
        higher = directions(name, found["higher_is_better"], found["group_subtasks"])
        assert {m: higher.get(m) for m in {key.partition(",")[0] for key in keys}} == {
            m: directions(name, predicted.higher_is_better, predicted.members).get(m)
            for m in {key.partition(",")[0] for key in keys}
        }
    assert predicted.members == found["group_subtasks"]
    assert choose("outer", found["results"]["outer"], directions("outer", found["higher_is_better"],
                  found["group_subtasks"])).key == "acc,none"  # fmt: skip


def test_mmlu_has_a_score_of_its_own() -> None:
    predicted = predict({"mmlu": "key"}, None)
    higher = directions("mmlu", predicted.higher_is_better, predicted.members)
    assert choose("mmlu", predicted.results["mmlu"], higher).key == "acc,none"


def test_what_python_decides_is_uncertain(folder: Path) -> None:
    (folder / "utils.py").write_text("def results(doc, results): return {'own': 1}\n")
    write(folder, {"sure": CHOICE, "g": {"group": "g", "task": ["python", "plain"]}, "plain": CHOICE})
    (folder / "python.yaml").write_text(
        yaml.safe_dump({"task": "python", **CHOICE}) + "process_results: !function utils.results\n"
    )
    (folder / "own.yaml").write_text("task: own\nclass: !function utils.results\n")
    assert predict({name: name for name in ("sure", "g", "own")}, str(folder)).uncertain == {"python", "g", "own"}


OWN = {"own": CHOICE}
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("no data", {**CHOICE, "dataset_path": None}, "", "write `dataset_path`"),
    ("no split", {**CHOICE, "test_split": None}, "", "write `test_split`"),
    ("split that is not there", {**CHOICE, "test_split": "validation"}, "", "`data_files` has test"),
    ("no files", {**CHOICE, "dataset_kwargs": None}, "", "write `data_files`"),
    ("missing file", {**CHOICE, "dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, "", "current folder"),
    ("missing pattern", {**CHOICE, "dataset_kwargs": {"data_files": {"test": "gone/*.jsonl"}}}, "", "current folder"),
    ("missing folder", {**CHOICE, "dataset_path": "./gone", "dataset_kwargs": {}}, "", "correct it"),
    ("mistyped folder", {**CHOICE, "dataset_path": "sets/gone", "dataset_kwargs": {}}, "", "correct it"),
    ("kind of output", {**CHOICE, "output_type": "multiple_choise"}, "", "did you mean `multiple_choice`?"),
    ("unknown key", {**CHOICE, "metrics": ["acc"]}, "", "correct the YAML"),
    ("no such function", CHOICE, "process_docs: !function utils.gone\n", "correct the reference"),
    ("a misspelled function", CHOICE, "process_docs: !function utils.reslts\n", "did you mean `utils.results`?"),
    ("no such module", CHOICE, "process_docs: !function elsewhere.f\n", "put the file there"),
    ("unknown filter", {**TEXT, "filter_list": [{"name": "a", "filter": [{"function": "gone"}]}]}, "", "`filter_list`"),
    ("broken", CHOICE, "x: [\n", "correct the YAML"),
    ("unknown member", {"group": "own", "task": ["arc_easy", "no_such_member"]}, "", "correct the group's list"),
]


@pytest.mark.parametrize(("task", "more", "fix"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_task_that_cannot_be_loaded_is_refused(folder: Path, task: dict[str, Any], more: str, fix: str) -> None:
    (folder / "utils.py").write_text("def results(doc, results): return {'own': 1}\n")
    (folder / "sets").mkdir()
    write(folder, {"own": task})
    with (folder / "own.yaml").open("a") as file:
        file.write(more)
    with pytest.raises(ConfigurationError) as raised:
        predict({"own": "stages.0.tasks.0"}, str(folder))
    assert raised.value.key == "stages.0.tasks.0"
    assert fix in raised.value.fix, str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_task_that_is_defined_twice_is_refused(folder: Path) -> None:
    write(folder, OWN)
    (folder / "again.yaml").write_text((folder / "own.yaml").read_text())
    with pytest.raises(ConfigurationError, match=f"again.yaml: `own` is defined again in {folder}/own.yaml"):
        predict({"own": "key"}, str(folder))


def test_a_task_is_measured_once(folder: Path) -> None:
    write(folder, TASKS)
    with pytest.raises(ConfigurationError, match="`mean_one` is measured by `mean` and by `mean_one`"):
        predict({"mean": "a", "mean_one": "b"}, str(folder))


def test_data_in_an_absolute_place_and_by_a_pattern_are_found(folder: Path) -> None:
    before = sorted(folder.iterdir())
    for files in (f"{folder}/data.jsonl", [f"{folder}/*.jsonl"], "hf://datasets/x/y.jsonl"):
        kwargs = {"data_files": {"test": files}}
        write(folder, {"own": {**CHOICE, "dataset_kwargs": kwargs}})
        predict({"own": "key"}, str(folder))
    assert sorted(folder.iterdir()) == [*before, folder / "data.jsonl", folder / "own.yaml"]
