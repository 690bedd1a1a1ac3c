"""What a start finds of an earlier one: changed weights and data are told, deleted models come from the store."""

import os
import shutil
from pathlib import Path

import pytest

from continual.config.load import Loaded, load_sequence
from continual.config.schema import EvaluationTask
from continual.contract.models import ModelRef
from continual.data.prepare import rows_inputs
from continual.errors import ConfigurationError
from continual.evaluation.service import Scorer
from continual.ledger.ledger import Ledger
from continual.models.files import model_hash
from continual.models.start import cached_hash
from continual.run.found import changes, check_finished, refuse_other_measures, same_start
from continual.run.read import changed_sources, file_state, sources
from continual.store import Store, publish_folder


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
        ledger.add("stage_done", stage=1, name="one", model="small/stages/1-one/model", hash=model_hash(folder))
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
        return Scorer(Store(tmp_path / "store"), sequence, {}, 1)

    with Ledger(loaded.run_folder) as ledger:
        refuse_other_measures(ledger, measures())
        file.write_text(f"{texts[name]}\n")
        refuse_other_measures(ledger, measures())  # nothing was scored yet
        ledger.add("scored", stage=0)
        refuse_other_measures(ledger, measures())
        file.write_text(texts[name].replace("ask", "old").replace("test_split: test", "test_split: old"))
        with pytest.raises(ConfigurationError, match="evaluate: files or data of the tasks sort have changed"):
            refuse_other_measures(ledger, measures())
        file.write_text(f"{texts[name]}\n")
        (tmp_path / "tasks" / "other.yaml").write_text("task: other\n")
        refuse_other_measures(ledger, measures())
