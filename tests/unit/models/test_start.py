"""The start model is checked once per store, when the run has it, before anything else."""

import json
from pathlib import Path

import pytest

from continual.config.schema import ModelSource
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError
from continual.models import check_start, model_hash, start
from continual.store import Store
from continual.testing.toys import without_ray
from tests.kits.families import REFUSED, family, with_vision
from tests.kits.weights import change_config, saved


def pretrained(source: str) -> ModelSource:
    return ModelSource.model_validate({"type": "pretrained", "source": source})


def reference(folder: Path) -> ModelRef:
    return ModelRef(str(folder), model_hash(folder))


BUILT = ModelSource.model_validate({"type": "python", "build": "tests.kits.models:tiny", "tokenizer": "tokenizer"})


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


def test_a_model_is_checked_once_per_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = reference(saved(tmp_path / "model"))
    calls: list[tuple[str, str]] = []

    def counted(folder: str, attention: str) -> list[str]:
        calls.append((folder, attention))
        return []

    monkeypatch.setattr(start, "check_weights", counted)
    for root in ("one", "one", "two"):
        assert check_start(Store(tmp_path / root), BUILT, model) == []
    assert check_start(Store(tmp_path / "two"), BUILT, model, "eager") == []
    assert calls == [(model.path, ""), (model.path, ""), (model.path, "eager")]


@pytest.mark.parametrize("name", ["OPT", "GptOss", "Mamba"])
def test_a_family_that_cannot_be_packed_is_refused_every_time(tmp_path: Path, name: str) -> None:
    sizes, reason = REFUSED[name]
    model, store = reference(saved(tmp_path / "model", family(name, **sizes))), Store(tmp_path / "store")
    for source, key in ((pretrained("owner/model"), "model.source"), (BUILT, "model.build"), (BUILT, "model.build")):
        with pytest.raises(ConfigurationError, match=reason) as raised:
            check_start(store, source, model)
        assert raised.value.key == key
        assert raised.value.exit_code == 2


def test_a_downloaded_model_without_a_layer_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(ConfigurationError, match="num_hidden_layers: 2"):
        check_start(Store(tmp_path / "store"), pretrained("owner/model"), reference(folder))


def test_what_is_not_trained_is_told_unless_the_check_before_the_start_has_told_it(tmp_path: Path) -> None:
    folder, store = saved(tmp_path / "model", with_vision()), Store(tmp_path / "store")
    for _ in range(2):
        [note] = check_start(store, pretrained("owner/model"), reference(folder))
        assert "`vision_tower`" in note
    assert check_start(store, pretrained(str(folder)), reference(folder)) == []
    [manifest] = (store.root / "checks").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["notes"] == [note]
