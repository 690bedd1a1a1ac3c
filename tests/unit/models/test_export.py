"""An exported model: the trained weights, the tokenizer as it was, published whole with a manifest."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.models import load_model, tokenizer_hash
from continual.models.export import export_model
from continual.models.files import VOCABULARY
from continual.store import folder_damage
from tests.kits.baselines import model_ref
from tests.kits.models import tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = Path(model_ref(tmp_path / "source", 0).path)
    (folder / "generation_config.json").write_text('{"temperature": 0.6}\n')
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One file of every kind that the check accepts as a tokenizer."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in (*VOCABULARY, "chat_template.jinja"):
        (folder / name).write_text(name)
    return folder


def trained(source: Path) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in load_model(str(source), "float32").state_dict().items()}


def test_weights_tokenizer_and_generation_settings_are_exported(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    state, target = trained(source), tmp_path / "stage" / "model"
    export_model(str(source), str(tokenizer), state, target, facts={"steps": 7})
    loaded = load_model(str(target), "auto").state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert tokenizer_hash(target) == tokenizer_hash(tokenizer)
    assert (target / "generation_config.json").read_bytes() == (source / "generation_config.json").read_bytes()
    assert json.loads((target / "manifest.json").read_text())["steps"] == 7
    assert folder_damage(target) is None
    assert list(target.parent.iterdir()) == [target]


def test_adaptations_are_applied_in_order_and_undone_in_reverse(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    calls: list[str] = []

    def adaptation(name: str, undone: bool = True) -> Any:
        def undo(model: Any) -> Any:
            calls.append(f"undo {name}")
            return model

        def adapt(model: Any) -> Any:
            calls.append(name)
            return undo if undone else None

        return adapt

    adapt = [adaptation("first"), adaptation("nothing", undone=False), adaptation("last")]
    export_model(str(source), str(tokenizer), trained(source), tmp_path / "model", adapt)
    assert calls == ["first", "nothing", "last", "undo last", "undo first"]


def test_a_state_of_another_model_is_refused_and_nothing_appears(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        export_model(str(source), str(tokenizer), tiny(intermediate_size=32).state_dict(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_earlier_export_and_what_a_kill_left_are_replaced(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    target, leftover = tmp_path / "model", tmp_path / ".model.tmp"
    for folder in (target, leftover):
        folder.mkdir()
        (folder / "old.bin").write_text("old")
    export_model(str(source), str(tokenizer), trained(source), target)
    assert not (target / "old.bin").exists()
    assert not leftover.exists()
