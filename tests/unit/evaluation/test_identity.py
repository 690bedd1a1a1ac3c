"""Scores are addressed task by task: whatever decides one changes its address, and no other task does."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from continual.config.hub import resolved_revision
from continual.config.task_files import TaskFiles
from continual.data.sources.hub import HubSource
from continual.errors import ConfigurationError
from continual.evaluation.identity import task_identity
from continual.evaluation.task_data import PACKAGED, check_data
from tests.kits.datasets_cache import ready

COMMIT, OTHER = "a" * 40, "b" * 40
FILES = {
    "tasks/one.yaml": "task: one\ninclude: base.inc\ndoc_to_text: !function utils.ask\nmetadata: {version: 1.0}\n",
    "tasks/base.inc": "dataset_path: json\ndataset_kwargs: {data_files: {test: data/test.jsonl}}\ntest_split: test\n",
    "tasks/utils.py": "from sibling import word\ndef ask(doc): return word\n",
    "tasks/sibling.py": "word = 'a'\n",
    "tasks/words.csv": "a,b\n",
    "tasks/script.yaml": "task: script\ndataset_path: data/folder\ntest_split: test\n",
    "tasks/hub.yaml": "task: hub\ndataset_path: owner/name\ntest_split: test\n",
    "tasks/both.yaml": "group: both\ntask: [one, script]\n",
    "data/test.jsonl": '{"a": 1}\n',
    "data/folder/script.py": "number = 1\n",
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    cache = tmp_path / "hub" / "datasets--owner--name" / "refs"
    cache.mkdir(parents=True)
    (cache / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "ready"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def address(task: str) -> str:
    return task_identity(task, TaskFiles("tasks"))


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("one", "tasks/one.yaml"), ("one", "tasks/base.inc"), ("one", "tasks/utils.py"), ("one", "tasks/sibling.py"),
        ("one", "tasks/words.csv"), ("one", "data/test.jsonl"), ("script", "data/folder/script.py"),
        ("hub", "hub/datasets--owner--name/refs/main"), ("both", "tasks/both.yaml"), ("both", "tasks/sibling.py"),
        ("both", "data/folder/script.py"),
    ],
)  # fmt: skip
def test_what_decides_a_score_changes_its_address(project: Path, task: str, file: str) -> None:
    path = project / file
    text, state, before = path.read_text(), path.stat(), address(task)
    changed = text.replace("1", "2") if "1" in text else text.replace("a", "b")
    changed = changed.replace("[one, script]", "[script]").replace("version: 2.0", "version: 3.0")
    assert changed != text
    path.write_text(changed)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert address(task) != before
    path.write_text(text)
    assert address(task) == before


def test_other_tasks_and_the_place_of_the_folder_do_not(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [address(task) for task in ("one", "script", "hub", "both")]
    (project / "tasks" / "more.yaml").write_text("task: more\ndataset_path: owner/other\n")
    (project / "tasks" / "__pycache__").mkdir()
    (project / "tasks" / "__pycache__" / "utils.pyc").write_text("compiled")
    assert [address(task) for task in ("one", "script", "hub", "both")] == before
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    (project / "tasks").rename(elsewhere)
    assert [task_identity(task, TaskFiles(str(elsewhere))) for task in ("one", "script", "hub", "both")] == before


def test_the_cache_says_the_commit_without_a_network(project: Path) -> None:
    assert resolved_revision("owner/name") == COMMIT
    assert resolved_revision("owner/name", OTHER) == OTHER
    assert resolved_revision("owner/name", "v1") is None
    assert resolved_revision("owner/Other") is None
    ready(project / "ready", "owner/Other", OTHER, [])
    assert resolved_revision("owner/Other") == OTHER
    ready(project / "ready", "owner/name", OTHER, [])
    assert resolved_revision("owner/name") == OTHER
    ready(project / "ready", "owner/name", COMMIT, [])
    assert resolved_revision("owner/name") == COMMIT
    ready(project / "ready", "owner/name", OTHER, ["newer"])
    assert resolved_revision("owner/name") == COMMIT


def test_a_task_is_known_by_the_commit_that_its_cache_gives(project: Path) -> None:
    """Without the hub `datasets` takes the newest that it has ready, which need not be the one noted for `main`."""
    for number, commit in enumerate((COMMIT, OTHER)):
        ready(project / "ready", "owner/name", commit, [commit[:1]])
        os.utime(project / "ready/owner___name/default/0.0.0" / commit, (number, number))
    before = address("hub")
    os.utime(project / "ready/owner___name/default/0.0.0" / COMMIT, (9, 9))
    assert address("hub") != before
    text = (project / "tasks" / "hub.yaml").read_text()
    (project / "tasks" / "hub.yaml").write_text(f"{text}dataset_kwargs: {{revision: {COMMIT}}}\n")
    address("hub")
    (project / "tasks" / "hub.yaml").write_text(f"{text}dataset_kwargs: {{revision: {OTHER}}}\n")
    with pytest.raises(
        ConfigurationError, match="would give commit aaaaaaaa of `owner/name` for bbbbbbbb; load it once"
    ):
        address("hub")
    config = {
        "output_type": "generate_until",
        "custom_dataset": None,
        "dataset_path": "owner/name",
        "test_split": "test",
    }
    for revision, refused in ((COMMIT, False), (OTHER, True), (None, False)):
        task = SimpleNamespace(**config, dataset_name=None, dataset_kwargs={"revision": revision})
        with pytest.raises(ConfigurationError, match="for bbbbbbbb") if refused else nullcontext():
            check_data("hub.yaml", task)


GIVEN = {
    "made": "custom_dataset: !function utils.load\ndataset_kwargs: {file: data/more.txt}\n",
    "described": "dataset_path: owner/name\nmetadata: {extra: data/more.txt}\n",
    "tar": "dataset_path: webdataset\ndataset_kwargs: {data_files: {test: data/more.txt}}\n",
    "base": "dataset_path: owner/name\ndataset_kwargs: {con: 'sqlite:///data/more.txt'}\n",
}


@pytest.mark.parametrize("name", GIVEN)
def test_files_that_are_given_to_the_code_of_the_data_decide_its_score(project: Path, name: str) -> None:
    (project / "tasks" / "given.yaml").write_text(f"task: given\ntest_split: test\n{GIVEN[name]}")
    (project / "data" / "more.txt").write_text("a")
    before = address("given")
    (project / "data" / "more.txt").write_text("b")
    assert address("given") != before
    moved = project / "elsewhere" / "more.txt"
    moved.parent.mkdir()
    moved.write_text("a")
    place = str(moved) if name != "base" else f"sqlite:///{moved}"
    text = GIVEN[name].replace("sqlite:///data/more.txt", place).replace("data/more.txt", place)
    (project / "tasks" / "given.yaml").write_text(f"task: given\ntest_split: test\n{text}")
    assert address("given") == before


@pytest.mark.parametrize(
    ("data", "place"),
    [("json\ndataset_kwargs: {data_files: {test: PLACE/test.jsonl}}", "data"), ("PLACE", "data/folder"),
     ("json\ndataset_kwargs: {data_files: test.jsonl, data_dir: PLACE}", "data")],
)  # fmt: skip
def test_equal_data_at_another_place_are_the_same(project: Path, data: str, place: str) -> None:
    found = set()
    for folder in (project / "first" / place, project / "second" / place):
        shutil.copytree(project / place, folder)
        text = f"task: given\ntest_split: test\ndataset_path: {data.replace('PLACE', str(folder))}\n"
        (project / "tasks" / "given.yaml").write_text(text)
        found.add(address("given"))
    assert len(found) == 1


def test_the_kinds_of_files_are_those_of_datasets() -> None:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    assert set(_PACKAGED_DATASETS_MODULES) <= set(PACKAGED)


def test_the_commit_is_in_the_address_of_a_hub_source(project: Path) -> None:
    source = HubSource(path="owner/name", text="t")
    before = source.identity()
    assert before["content"] == ["owner/name", None, COMMIT]
    ready(project / "ready", "owner/name", COMMIT, ["a"])
    assert source.identity() == before
    shutil.rmtree(project / "ready")
    assert source.notes() == []
    assert source.pinned().revision == COMMIT
    assert source.pinned().identity() == before
    (project / "hub" / "datasets--owner--name" / "refs" / "main").write_text(OTHER)
    assert source.identity() != before
    [note] = HubSource(path="owner/unknown", text="t").notes()
    assert "commit of `owner/unknown` is not known" in note
