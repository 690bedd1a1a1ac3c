"""A storage of somebody else's deletes, replaces and sends nothing that lies outside of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError
from continual.ledger.ledger import read_ledger
from continual.ledger.places import placed_model
from continual.models.files import model_hash
from continual.run.found import check_finished
from continual.run.resume import claim
from continual.show.tracking import sender
from continual.store import Store, publish_folder
from tests.kits.project import sequence, write_model, write_yaml


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user beside the storage, which stays as it is."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert (folder / "thesis.txt").read_text() == "years of work"


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """The hash of a model that the store has whole, as a stage left it."""
    kept = tmp_path / "storage" / "store" / "stages" / ("a" * 20) / "model"
    kept.parent.mkdir(parents=True)
    write_model(tmp_path / "made")
    publish_folder(tmp_path / "made", kept, {})
    return model_hash(kept)


@pytest.mark.parametrize("way", ["path", "absolute", "link", "linked folder", "missing"])
def test_no_folder_outside_is_replaced_by_a_model(tmp_path: Path, victim: Path, stored: str, way: str) -> None:
    run = tmp_path / "storage" / "x"
    (run / "stages").mkdir(parents=True)
    text = "x/stages/1-one/model"
    if way == "path":
        text = "../victim"
    elif way in ("absolute", "missing"):
        text = str(victim if way == "absolute" else victim / "new")
    elif way == "link":
        (run / "stages" / "1-one").mkdir()
        (run / "stages" / "1-one" / "model").symlink_to(victim)
    else:
        (run / "stages" / "1-one").symlink_to(victim)
    model = ModelRef(placed_model(text, run), stored)
    for plan in (True, False):
        with pytest.raises(ConfigurationError, match="lies outside of the storage, where nothing is replaced"):
            check_finished(Store(tmp_path / "storage" / "store"), 1, model, plan)


def test_a_model_outside_that_is_as_it_was_is_used(tmp_path: Path, stored: str) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(tmp_path / "storage" / "store" / "stages" / ("a" * 20) / "model", outside)
    assert check_finished(Store(tmp_path / "storage" / "store"), 1, ModelRef(str(outside), stored)) is None


def test_a_fresh_start_deletes_links_and_not_what_they_name(tmp_path: Path, victim: Path) -> None:
    loaded = load_sequence(write_yaml(tmp_path, sequence(storage=str(tmp_path / "runs"))), [])
    loaded.run_folder.mkdir(parents=True)
    (loaded.run_folder / "stages").symlink_to(victim)
    with claim(loaded.run_folder, loaded, fresh=True):
        assert not (loaded.run_folder / "stages").exists()


class Client:
    """Stands for MLflow's client and keeps what it is given to send."""

    sent: list[str]

    def __init__(self, *args: Any):
        self.runs: dict[str, str] = {}
        self.connected = False

    def settle(self) -> None:
        pass

    def connect(self, runs: dict[str, str]) -> bool:
        self.connected = True
        return True

    def start(self, key: str, *args: Any) -> None:
        self.runs[key] = key

    def artifact(self, key: str, path: Path) -> None:
        self.sent.append(path.name)

    def register(self, key: str, name: str, path: Path, tags: dict[str, str]) -> None:
        self.sent.append(f"{path.parent.name}/{path.name}")

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def test_what_lies_outside_is_not_sent(tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client
    client.sent = []
    monkeypatch.setattr(sender, "Client", client)
    run = tmp_path / "storage" / "x"
    for name in ("report", "links", "stages/1-one/model", "stages/2-two/model"):
        (run / name).mkdir(parents=True)
        (run / name / "a.txt").touch()
    (run / "config.yaml").touch()
    (run / "key.txt").symlink_to(victim / "thesis.txt")
    (run / "links" / "key.txt").symlink_to(victim / "thesis.txt")
    (run / "stages" / "2-two" / "model" / "key.txt").symlink_to(victim / "thesis.txt")
    started = {"event": "started", "name": "x", "tags": {}, "params": {}}
    done = {"event": "stage_done", "hash": "h", "rows": "r", "version": {"name": "m", "tags": {}}}
    names = ["one", "two", "three"]
    models = ["x/stages/1-one/model", "x/stages/2-two/model", str(victim)]
    events: list[dict[str, Any]] = [
        {"event": "run", "id": "a", "format": 2},
        {**started, "files": ["../../victim/thesis.txt"]},
        {**started, "files": [str(victim / "thesis.txt")]},
        {**started, "files": ["config.yaml", "key.txt", "links", "report"]},
        *({"event": "prepared", "stage": stage, "name": name, "samples": [], "steps": 0}
          for stage, name in enumerate(names, 1)),
        *({**done, "stage": stage, "name": name, "model": model}
          for stage, (name, model) in enumerate(zip(names, models, strict=True), 1)),
    ]  # fmt: skip
    (run / "ledger.jsonl").write_text("".join(json.dumps({"time": 1, **event}) + "\n" for event in events))
    assert read_ledger(run).damaged == 2
    sending = sender.Sender(run / "ledger.jsonl", "http://host", None)
    sending.send()
    sending.close()
    assert client.sent == ["config.yaml", "report", "1-one/model"]
