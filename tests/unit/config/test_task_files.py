"""Names of lm-eval tasks, groups and tags, found without lm-eval; the files, read as lm-eval reads them."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from continual.config.task_files import Function, TaskFiles, expand_tags, read_task, scan
from continual.errors import ConfigurationError


def kind(name: str, folder: Path | None = None) -> str | None:
    found = TaskFiles(str(folder) if folder else None).find(name)
    return found.kind if found else None


def test_known_and_unknown_names() -> None:
    names = ["arc_easy", "blimp_principle_A_case_1", "gsm8k", "mmlu", "ai2_arc", "mmlu_stem_tasks", "arc_esy"]
    assert [kind(name) for name in names] == ["task", "task", "task", "group", "tag", "tag", None]
    assert TaskFiles().near("arc_esy") == "arc_easy"
    assert TaskFiles().near("ai2_acr") == "ai2_arc"
    assert TaskFiles().near("nothing like any task at all") is None


def test_own_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.yaml").write_text("include: base\ntask: 'my_task'  # mine\n")
    (tmp_path / "two.yaml").write_text('"task": "my_other"\r\noutput_type: x\n')
    (tmp_path / "group.yaml").write_text("group: my_group\ntask:\n  - my_task\n  - task: inner\n")
    (tmp_path / "not.txt").write_text("task: hidden\n")
    (tmp_path / "base").write_text("tag:\n  - first # of all\n  - second\n")
    names = ["my_task", "my_other", "my_group", "first", "second", "hidden", "inner", "all"]
    expected = ["task", "task", "group", "tag", "tag", None, None, None]
    assert [kind(name, tmp_path) for name in names] == expected
    assert TaskFiles(str(tmp_path)).near("my_tusk") == "my_task"
    with pytest.raises(ConfigurationError, match=r"evaluate\.include_path"):
        TaskFiles(str(tmp_path / "absent"))


def test_large_files_beside_the_tasks_are_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("task: small\n")
    (tmp_path / "weights.bin").write_bytes(b"x" * (1 << 20) + b"\ntag: hidden\n")
    assert set(scan(str(tmp_path))) == {"small"}


def test_a_task_that_is_defined_twice_is_known_by_both_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("task: same\n")
    assert scan(str(tmp_path))["same"].places == (f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml")


def test_it_is_quick_and_loads_neither_torch_nor_lm_eval() -> None:
    """Measured in CPU time, because the machine may be busy: 0.5 s for a name that is nowhere."""
    code = (
        "import sys; from continual.config.task_files import TaskFiles; TaskFiles().find('arc_easy');"
        "TaskFiles().find('x');"
        "assert not {'torch', 'ray', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)"
    )
    started = time.process_time()
    TaskFiles().find("no_such_task")
    assert time.process_time() - started < 2
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_are_read_and_merged_as_lm_eval_does(tmp_path: Path) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    root = Path(sys.modules["lm_eval"].__file__ or "").parent / "tasks"
    for file in (
        "arc/arc_challenge.yaml",
        "mmlu/default/mmlu_anatomy.yaml",
        "gsm8k/gsm8k-cot.yaml",
        "glue/cola/default.yaml",
    ):
        ours, theirs = read_task(str(root / file)), load_yaml(root / file, resolve_func=False)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if isinstance(value, Function):
                assert f"{value.folder}/{value}" == theirs[key]
            else:
                assert value == theirs[key]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.yaml": "task: a\nb: [\n"}, "line 3"),
        ({"a.yaml": "- a\n"}, "does not hold a mapping"),
        ({"a.yaml": "task: a\ninclude: gone\n"}, "a.yaml includes it"),
        ({"a.yaml": "task: a\ninclude: a.yaml\n"}, "includes itself"),
        ({"a.yaml": "task: a\ninclude: b\n", "b": "c: {\n"}, "b line"),
        ({"a.yaml": "task: a\nb: !!python/object:os.system x\n"}, "line 2"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_task(str(tmp_path / "a.yaml"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def tagged(folder: Path) -> None:
    (folder / "base").write_text("tag: own_tag\n")
    (folder / "b.yaml").write_text("task: b\ninclude: base\n")
    (folder / "a.yaml").write_text("task: a\ntag: [own_tag, other]\n")
    (folder / "c.yaml").write_text("task: c\ninclude: base\ntag: other\n")
    (folder / "broken.yaml").write_text("task: d\ntag: own_tag\nx: [\n")


def test_tags_become_their_tasks(tmp_path: Path) -> None:
    tagged(tmp_path)
    raw: dict[str, Any] = {
        "stages": [{"tasks": ["own_tag"]}, {"tasks": [{"name": "own_tag", "metric": "acc"}, "text", "arc_esay"]}, {}],
        "evaluate": {"old_tasks": ["ai2_arc", "mmlu"], "include_path": str(tmp_path), "texts": [{"name": "text"}]},
    }
    notes = expand_tags(raw)
    assert raw["stages"][0]["tasks"] == ["a", "b"]
    metric = {"metric": "acc"}
    assert raw["stages"][1]["tasks"] == [{"name": "a", **metric}, {"name": "b", **metric}, "text", "arc_esay"]
    assert raw["evaluate"]["old_tasks"] == ["arc_challenge", "arc_easy", "mmlu"]
    assert notes[-1] == "`ai2_arc` in evaluate.old_tasks is a tag: its tasks are arc_challenge, arc_easy"
    assert len(notes) == 3


@pytest.mark.parametrize(
    "raw", [{}, {"stages": 1, "evaluate": []}, {"stages": [None, {"tasks": 3}, {"tasks": [None, 1]}]}]
)
def test_a_configuration_of_another_form_is_left_to_the_schema(raw: dict[str, Any]) -> None:
    assert expand_tags(raw) == []


@pytest.mark.parametrize("tag", ["ai2_arc", "mmlu_stem_tasks", "lambada", "truthfulqa", "longbench2_tasks"])
def test_the_tasks_of_a_tag_are_lm_evals(tag: str) -> None:
    from lm_eval.tasks._index import TaskIndex

    files = TaskFiles()
    found = files.find(tag)
    assert found is not None
    index = TaskIndex.build([Path(folder) for folder in found.places])
    assert files.members(tag) == sorted(index[tag].tags)


def test_own_names_are_suggested_first_whatever_their_case(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: inc\n")
    (tmp_path / "b.yaml").write_text("task: ARC_eesy\n")
    files = TaskFiles(str(tmp_path))
    assert (files.near("Inc"), files.near("INC"), files.near("arc_eesi")) == ("inc", "inc", "ARC_eesy")
    assert files.near("hellaswga") == "hellaswag"


def test_a_task_in_a_file_that_lm_eval_does_not_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yml").write_text("task: hidden\n")
    files = TaskFiles(str(tmp_path))
    assert files.find("hidden") is None
    assert files.unread("hidden") == f"{tmp_path}/deep/a.yml"
    assert files.unread("other") is None


@pytest.mark.parametrize("line", ["task: 5", "group: 5", "task: 1.5", "task: true", "task: 2024-01-01", "task: {a: 1}"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "good.yaml").write_text('task: "5"\n')
    TaskFiles(str(tmp_path)).check_names()
    (tmp_path / "other.yaml").write_text(f"{line}\n")
    with pytest.raises(ConfigurationError, match=r"include_path.*other\.yaml: `(task|group): .*not text"):
        TaskFiles(str(tmp_path)).check_names()
