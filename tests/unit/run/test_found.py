"""What a start finds of an earlier one: changed weights and data are told, deleted models come from the store."""

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from continual.config.load import Loaded, load_sequence
from continual.config.schema import EvaluationTask
from continual.contract.models import ModelRef
from continual.data.prepare import rows_inputs
from continual.data.sources.python import PythonSource
from continual.errors import ConfigurationError
from continual.evaluation.service import Scorer, evaluators_of
from continual.ledger.folder import RunFolder, StageFolder
from continual.ledger.ledger import Ledger
from continual.models.files import model_hash
from continual.models.start import built_inputs, cached_hash
from continual.run.found import (
    changes,
    check_finished,
    foreseen,
    refuse_other_checkpoints,
    refuse_other_measures,
    same_start,
)
from continual.run.read import changed_sources, file_state, sources
from continual.store import Store, publish_folder
from continual.training.checkpoints import step_folder


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def rewrite(path: Path, content: bytes) -> None:
    """Write a file as `cp -p` or `rsync -t` would: size and time of modification as they were."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """A sequence on local files; its data and its text are read as the run would."""
    model_folder(tmp_path / "model")
    for name in ("task", "text"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a b"}\n')
    (tmp_path / "seq.yaml").write_text(
        f"""
name: small
storage: {tmp_path}/runs
model: {{type: pretrained, source: {tmp_path}/model}}
stages: [{{name: one, data: {{type: jsonl, path: task.jsonl, text: text}}, steps: 1}}]
evaluate: {{texts: [{{name: old, data: {{type: jsonl, path: text.jsonl, text: text}}}}]}}
"""
    )
    return load_sequence(tmp_path / "seq.yaml", [])


def finished(loaded: Loaded) -> Store:
    """Write the ledger of the finished run, as far as it says what the run had."""
    sequence = loaded.sequence
    store = Store(Path(sequence.storage) / "store")
    model = Path(str(sequence.model.source))
    with Ledger(loaded.run_folder) as ledger:
        ledger.add("start_model", path=str(model), hash=cached_hash(store, model))
        for named in sources(sequence):
            rows = store.artefact("rows", rows_inputs(named.source, str(model), sequence.train.row_tokens))
            ledger.add("read", key=named.key, stage=named.stage, rows=rows.hash, state=file_state(named.source))
    return store


def test_a_finished_run_says_what_has_changed_since(loaded: Loaded, tmp_path: Path) -> None:
    finished(loaded)
    assert changes(loaded) == []
    (tmp_path / "task.jsonl").touch()  # another time, the same documents
    assert changes(loaded) == []
    (tmp_path / "task.jsonl").write_text('{"text": "a c"}\n')
    assert [text.split("`")[1] for text in changes(loaded)] == ["stages.0.data"]
    (tmp_path / "text.jsonl").write_text('{"text": "c b"}\n')
    rewrite(tmp_path / "model" / "model.safetensors", b"WEIGHTS")
    assert [text.split("`")[1] for text in changes(loaded)] == [
        "model.source",
        "evaluate.texts.0.data",
        "stages.0.data",
    ]


def test_data_rewritten_with_size_and_time_kept_is_noticed(loaded: Loaded, tmp_path: Path) -> None:
    store = finished(loaded)
    rewrite(tmp_path / "text.jsonl", b'{"text": "x y"}\n')
    with Ledger(loaded.run_folder) as ledger:
        found = changed_sources(loaded.sequence, ledger, store, str(tmp_path / "model"))
    assert [named.key for named in found] == ["evaluate.texts.0.data"]


def test_a_resumed_run_refuses_other_start_weights(loaded: Loaded, tmp_path: Path) -> None:
    store = finished(loaded)
    known = ModelRef(str(tmp_path / "model"), model_hash(tmp_path / "model"))
    assert same_start(loaded.sequence, store, known) == known
    rewrite(tmp_path / "model" / "model.safetensors", b"WEIGHTS")
    with pytest.raises(ConfigurationError, match=f"start model in {tmp_path}/model has changed since"):
        same_start(loaded.sequence, store, known)


@pytest.mark.parametrize("fault", ["deleted", "changed", "emptied"])
def test_a_finished_stages_model_is_taken_from_the_store_again(tmp_path: Path, fault: str) -> None:
    store = Store(tmp_path / "store")
    made = model_folder(tmp_path / "new")
    kept = tmp_path / "store" / "stages" / "abc" / "model"
    kept.parent.mkdir(parents=True)
    publish_folder(made, kept, {})
    shutil.copytree(kept, tmp_path / "run" / "model")
    model = ModelRef(str(tmp_path / "run" / "model"), model_hash(tmp_path / "run" / "model"))
    assert check_finished(store, 1, model) is None
    if fault == "deleted":
        shutil.rmtree(model.path)
    elif fault == "changed":
        rewrite(Path(model.path) / "model.safetensors", b"WEIGHTS")
    else:
        (Path(model.path) / "model.safetensors").unlink()
    note = check_finished(store, 1, model)
    assert note
    assert "was taken from the store again" in note
    assert model_hash(model.path) == model.hash


@pytest.mark.parametrize("store_too", [False, True])
def test_a_model_that_the_store_lacks_is_one_sentence(tmp_path: Path, store_too: bool) -> None:
    store = Store(tmp_path / "store")
    if store_too:
        kept = tmp_path / "store" / "stages" / "abc" / "model"
        kept.parent.mkdir(parents=True)
        publish_folder(model_folder(tmp_path / "a"), kept, {})
        (kept / "model.safetensors").write_bytes(b"WEIGHTS")
    model = ModelRef(str(tmp_path / "run" / "model"), "0" * 20)
    with pytest.raises(ConfigurationError, match=r"its model in .*run/model is missing, and the store lacks it"):
        check_finished(store, 2, model)


@pytest.mark.parametrize("fault", ["deleted", "changed"])
def test_a_finished_run_says_what_became_of_its_models(loaded: Loaded, fault: str) -> None:
    finished(loaded)
    folder = model_folder(loaded.run_folder / "stages" / "1-one" / "model")
    with Ledger(loaded.run_folder) as ledger:
        ledger.add(
            "stage_done", stage=1, name="one", model="small/stages/1-one/model", hash=model_hash(folder), rows="r"
        )
    assert changes(loaded) == []
    if fault == "deleted":
        shutil.rmtree(folder)
    else:
        rewrite(folder / "model.safetensors", b"WEIGHTS")
    [note] = changes(loaded)
    what = "is missing" if fault == "deleted" else "has changed"
    assert note == f"stages.0: its model in {folder} {what}, and the store lacks it"


@pytest.mark.parametrize("name", ["tasks/sort.yaml", "tasks/utils.py", "data/sort.jsonl"])
def test_scores_under_other_task_files_are_refused(loaded: Loaded, tmp_path: Path, name: str) -> None:
    file, data = tmp_path / name, tmp_path / "data" / "sort.jsonl"
    texts = {
        "tasks/sort.yaml": "task: sort\ndataset_path: json\ntest_split: test\ndoc_to_text: !function utils.ask\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n",
        "tasks/utils.py": "def ask(doc): return doc['ask']\n",
        "data/sort.jsonl": '{"ask": "2 1"}\n',
    }
    for given, text in texts.items():
        (tmp_path / given).parent.mkdir(exist_ok=True)
        (tmp_path / given).write_text(text)
    update = {"include_path": str(tmp_path / "tasks"), "old_tasks": [EvaluationTask(name="sort")]}
    evaluate = loaded.sequence.evaluate.model_copy(update=update)
    sequence = loaded.sequence.model_copy(update={"evaluate": evaluate})

    def measures() -> Scorer:
        return Scorer(Store(tmp_path / "store"), sequence, {}, evaluators_of(sequence, 1))

    with Ledger(loaded.run_folder) as ledger:
        refuse_other_measures(ledger, measures())
        file.write_text(f"{texts[name]}\n")
        refuse_other_measures(ledger, measures())  # nothing was scored yet
        ledger.add("scored", stage=0, name="start", scores={})
        refuse_other_measures(ledger, measures())
        file.write_text(texts[name].replace("ask", "old").replace("test_split: test", "test_split: old"))
        with pytest.raises(ConfigurationError, match="evaluate: files or data of the tasks sort have changed"):
            refuse_other_measures(ledger, measures())
        file.write_text(f"{texts[name]}\n")
        (tmp_path / "tasks" / "other.yaml").write_text("task: other\n")
        refuse_other_measures(ledger, measures())


def code(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a module of the user's that imports a helper, and make it importable; return the helper's file."""
    helper = folder / f"{name}_helper.py"
    helper.write_text(text)
    (folder / f"{name}.py").write_text(f"from {name}_helper import value\n")
    monkeypatch.syspath_prepend(folder)
    return helper


@pytest.mark.parametrize("plan", [False, True])
def test_a_finished_run_notices_another_model_builder(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: bool
) -> None:
    helper = code(tmp_path, f"builder_{plan}".lower(), "value = 1\n", monkeypatch)
    model = loaded.sequence.model.model_copy(
        update={
            "type": "python", "source": None, "build": f"builder_{plan}:value".lower(),
            "arguments": {"corpus": str(tmp_path / "text.jsonl")}, "tokenizer": str(tmp_path / "model"),
        }
    )  # fmt: skip
    loaded = replace(loaded, sequence=loaded.sequence.model_copy(update={"model": model}))
    store = Store(Path(loaded.sequence.storage) / "store")
    with Ledger(loaded.run_folder) as ledger:
        built = store.artefact("models", built_inputs(model, 0)).hash
        ledger.add("start_model", path=f"store/models/{built}", hash="0" * 20)
    assert changes(loaded, plan) == foreseen(loaded) == []
    helper.write_text("value = 2\n")
    assert [text.split("`")[1] for text in changes(loaded, plan)] == ["model.build"]
    [note] = foreseen(loaded)
    assert note.startswith("`model.build`: its code, arguments or files have changed since this run began")
    helper.write_text("value = 1\n")
    (tmp_path / "text.jsonl").write_text('{"text": "another argument"}\n')
    assert [text.split("`")[1] for text in changes(loaded, plan)] == ["model.build"]


def test_a_finished_run_notices_another_python_source(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = code(tmp_path, "documents", "value = 1\n", monkeypatch)
    source = PythonSource(function="documents:value")
    stage = loaded.sequence.stages[0].model_copy(update={"data": source})
    loaded = replace(loaded, sequence=loaded.sequence.model_copy(update={"stages": [stage]}))
    finished(loaded)
    assert changes(loaded) == []
    helper.write_text("value = 2\n")
    assert [text.split("`")[1] for text in changes(loaded)] == ["stages.0.data"]


def interrupted(loaded: Loaded, *events: str) -> None:
    finished(loaded)
    with Ledger(loaded.run_folder) as ledger:
        for event in events:
            prepared = {"stage": 1, "name": "one", "samples": [], "steps": 1, "inputs": {"task": ["1"]}}
            scored = {"stage": 0, "name": "start", "scores": {}}
            ledger.add(event, **(prepared if event == "prepared" else scored))


def test_a_plan_refuses_changed_start_weights_and_texts_as_the_run(loaded: Loaded, tmp_path: Path) -> None:
    interrupted(loaded, "scored")
    before = sorted(path for path in (tmp_path / "runs").rglob("*"))
    assert foreseen(loaded) == []
    rewrite(tmp_path / "text.jsonl", b'{"text": "x y"}\n')
    with pytest.raises(ConfigurationError, match=r"evaluate\.texts\.0\.data: what is measured has changed since"):
        foreseen(loaded)
    rewrite(tmp_path / "model" / "model.safetensors", b"WEIGHTS")
    with pytest.raises(ConfigurationError, match=r"model\.source: the start model in .* has changed since this run"):
        foreseen(loaded)
    assert sorted(path for path in (tmp_path / "runs").rglob("*")) == before
    hashes = (tmp_path / "runs" / "store" / ".hashes.json").read_text()
    assert "WEIGHTS" not in hashes
    assert model_hash(tmp_path / "model") not in hashes


def test_a_plan_names_changed_data_and_refuses_it_once_training_began(loaded: Loaded, tmp_path: Path) -> None:
    interrupted(loaded, "prepared")
    assert foreseen(loaded) == []
    (tmp_path / "task.jsonl").write_text('{"text": "a c"}\n')
    [note] = foreseen(loaded)
    assert note == "`stages.0.data` has changed since this run began (files, code or versions)"
    RunFolder(loaded.run_folder).stage(1, "one").checkpoints.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"stages\.0: its training began with different contents of task "):
        foreseen(loaded)


def test_a_plan_says_that_a_model_comes_from_the_store_and_leaves_it_there(loaded: Loaded, tmp_path: Path) -> None:
    interrupted(loaded)
    kept = tmp_path / "runs" / "store" / "stages" / "abc" / "model"
    kept.parent.mkdir(parents=True)
    publish_folder(model_folder(tmp_path / "new"), kept, {})
    with Ledger(loaded.run_folder) as ledger:
        ledger.add("stage_done", stage=1, name="one", model="small/stages/1-one/model", rows="r", hash=model_hash(kept))
    [note] = foreseen(loaded)
    assert note.endswith("is missing; it will be taken from the store again")
    assert not (loaded.run_folder / "stages").exists()
    shutil.rmtree(kept)
    with pytest.raises(ConfigurationError, match=r"stages\.0: its model in .* is missing, and the store lacks it"):
        foreseen(loaded)


def test_a_plan_refuses_other_measures_as_the_run(loaded: Loaded, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "sort.yaml").write_text("task: sort\ndoc_to_text: '{{ask}}'\n")
    update = {"include_path": str(tasks), "old_tasks": [EvaluationTask(name="sort")]}
    evaluate = loaded.sequence.evaluate.model_copy(update=update)
    loaded = replace(loaded, sequence=loaded.sequence.model_copy(update={"evaluate": evaluate}))
    interrupted(loaded, "scored")
    with Ledger(loaded.run_folder) as ledger:
        refuse_other_measures(
            ledger, Scorer(Store(tmp_path / "runs" / "store"), loaded.sequence, {}, evaluators_of(loaded.sequence, 1))
        )
    assert foreseen(loaded) == []
    (tasks / "sort.yaml").write_text("task: sort\ndoc_to_text: 'Sort: {{ask}}'\n")
    with pytest.raises(ConfigurationError, match="evaluate: files or data of the tasks sort have changed"):
        foreseen(loaded)
    assert changes(loaded) == [
        "evaluate: files or data of the tasks sort have changed since this run began, and its scores would not compare"
    ]
    other = loaded.sequence.model_copy(update={"evaluate": loaded.sequence.evaluate.model_copy(update={"limit": 3})})
    (tasks / "sort.yaml").write_text("task: sort\ndoc_to_text: '{{ask}}'\n")
    with pytest.raises(ConfigurationError, match="evaluate: settings have changed since this run began"):
        foreseen(replace(loaded, sequence=other))


@pytest.mark.parametrize(
    ("file", "earlier"), [("state/x.safetensors", False), ("ddp.pt", True), ("deepspeed/x_optim_states.pt", True)]
)
def test_checkpoints_of_an_earlier_version_are_refused_before_a_start(tmp_path: Path, file: str, earlier: bool) -> None:
    """Those of this version are read by any number of workers, under every strategy."""
    files = StageFolder(tmp_path)
    temporary = files.checkpoints / ".new"
    (temporary / file).parent.mkdir(parents=True)
    (temporary / file).write_bytes(b"x")
    publish_folder(temporary, step_folder(files.checkpoints, 3), {"world_size": 2})
    said = r"stages\.1: its checkpoints in .* are of an earlier version"
    with pytest.raises(ConfigurationError, match=said) if earlier else nullcontext():
        refuse_other_checkpoints(2, files)
    files.model.mkdir()
    refuse_other_checkpoints(2, files)  # what has ended needs no checkpoint
