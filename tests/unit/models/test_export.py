"""An exported model: the trained weights, the tokenizer as it was, published whole with a manifest."""

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from continual.errors import ContinualError
from continual.models import load_model, tokenizer_hash
from continual.models.export import export_model
from continual.store import folder_damage
from tests.kits.baselines import model_ref
from tests.kits.families import TRAINED, family, with_vision
from tests.kits.models import tiny
from tests.kits.weights import Tensors, change_config, change_weights, pickled, saved
from tests.unit.models.test_files import KINDS

PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


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
    for name in (*KINDS.values(), "chat_template.jinja", *PROCESSORS):
        (folder / name).write_text(name)
    return folder


def trained(source: Path) -> dict[str, torch.Tensor]:
    """Return a state that is not that of the files."""
    return {name: tensor + 1 for name, tensor in load_model(str(source), "float32").state_dict().items()}


def test_weights_tokenizer_and_generation_settings_are_exported(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    state, target = trained(source), tmp_path / "stage" / "model"
    export_model(str(source), str(tokenizer), state.items(), target, facts={"steps": 7})
    loaded = load_model(str(target), "auto").state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert tokenizer_hash(target) == tokenizer_hash(tokenizer)
    for name in PROCESSORS:
        assert (target / name).read_text() == name
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
    export_model(str(source), str(tokenizer), trained(source).items(), tmp_path / "model", adapt)
    assert calls == ["first", "nothing", "last", "undo last", "undo first"]


@pytest.mark.parametrize("change", ["another shape", "one too many", "one too few"])
def test_a_state_of_another_model_is_refused_and_nothing_appears(
    source: Path, tokenizer: Path, tmp_path: Path, change: str
) -> None:
    state, name = trained(source), "model.layers.0.mlp.up_proj.weight"
    if change == "another shape":
        state[name] = state[name][1:]
    elif change == "one too many":
        state["model.layers.9.mlp.up_proj.weight"] = state[name]
    else:
        del state[name]
    expected = rf"the model in \S+source has changed: `model\.layers\.{9 if change == 'one too many' else 0}\.mlp\.up"
    with pytest.raises(ContinualError, match=expected):
        export_model(str(source), str(tokenizer), state.items(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_one_trained_tensor_at_a_time_is_there(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    """What is gathered from the ranks is copied and let go."""
    given: list[weakref.ref[torch.Tensor]] = []

    def gathered() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in load_model(str(source), "float32").state_dict().items():
            assert all(known() is None for known in given)
            whole = tensor + 1
            given.append(weakref.ref(whole))
            yield name, whole
            del whole

    export_model(str(source), str(tokenizer), gathered(), tmp_path / "model")
    assert len(given) > 10


def test_an_earlier_export_and_what_a_kill_left_are_replaced(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    target, leftover = tmp_path / "model", tmp_path / ".model.tmp"
    for folder in (target, leftover):
        folder.mkdir()
        (folder / "old.bin").write_text("old")
    export_model(str(source), str(tokenizer), trained(source).items(), target)
    assert not (target / "old.bin").exists()
    assert not leftover.exists()


def dtypes(folder: Path) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("as_pickle", [False, True])
def test_the_dtype_is_that_of_the_model_that_was_trained(
    tmp_path: Path, tokenizer: Path, dtype: torch.dtype, as_pickle: bool
) -> None:
    model: torch.nn.Module = tiny()
    source = saved(tmp_path / "source", model.to(dtype))
    if as_pickle:
        pickled(source)
    state = trained(source)
    export_model(str(source), str(tokenizer), state.items(), tmp_path / "model")
    assert set(dtypes(tmp_path / "model").values()) == {dtype}
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["dtype"] == str(dtype).removeprefix("torch.")
    loaded = load_model(str(tmp_path / "model"), "auto")
    assert loaded.dtype == dtype
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name].to(dtype))


def test_the_dtype_of_the_files_counts_and_not_that_of_the_config(tmp_path: Path, tokenizer: Path) -> None:
    source = saved(tmp_path / "source", tiny().bfloat16())
    change_config(source, dtype="float32")
    export_model(str(source), str(tokenizer), trained(source).items(), tmp_path / "model")
    assert set(dtypes(tmp_path / "model").values()) == {torch.bfloat16}


def test_tensors_of_several_dtypes_keep_theirs(tmp_path: Path, tokenizer: Path) -> None:
    source = saved(tmp_path / "source", tiny().bfloat16())

    def norms(tensors: Tensors) -> Tensors:
        return {name: tensor.float() if "norm" in name else tensor for name, tensor in tensors.items()}

    change_weights(source, norms)
    export_model(str(source), str(tokenizer), trained(source).items(), tmp_path / "model")
    assert dtypes(tmp_path / "model") == dtypes(source)


@pytest.mark.parametrize("name", TRAINED)
def test_an_export_of_any_family_is_loaded_by_the_same_loader(tmp_path: Path, tokenizer: Path, name: str) -> None:
    source = saved(tmp_path / "source", family(name, **TRAINED[name]))
    state = load_model(str(source), "float32").state_dict()
    export_model(str(source), str(tokenizer), state.items(), tmp_path / "model")
    again = load_model(str(tmp_path / "model"), "float32").state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_an_export_holds_the_vision_tower_too(tmp_path: Path, tokenizer: Path) -> None:
    source = saved(tmp_path / "source", with_vision().bfloat16())
    export_model(
        str(source), str(tokenizer), load_model(str(source), "float32").state_dict().items(), tmp_path / "model"
    )
    assert dtypes(tmp_path / "model") == dtypes(source)
    assert load_model(str(tmp_path / "model"), "float32").model.vision_tower is not None


@pytest.mark.parametrize(
    ("listed", "ends", "written"),
    [
        ({"eos_token_id": 2, "temperature": 0.6}, (), {"eos_token_id": 2, "temperature": 0.6}),
        ({"eos_token_id": 2, "temperature": 0.6}, (7,), {"eos_token_id": [2, 7], "temperature": 0.6}),
        ({"eos_token_id": [2, 1]}, (7, 2, 7), {"eos_token_id": [2, 1, 7]}),
        ({"eos_token_id": [2, 1]}, (1,), {"eos_token_id": [2, 1]}),
        ({"top_k": 5}, (7,), {"top_k": 5, "eos_token_id": 7}),
        (None, (), {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}),
        (None, (7,), {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": 0}),
    ],
)
def test_generation_ends_at_the_tokens_that_were_trained_too(
    tmp_path: Path, tokenizer: Path, listed: dict[str, Any] | None, ends: tuple[int, ...], written: dict[str, Any]
) -> None:
    source = saved(tmp_path / "source")
    file = source / "generation_config.json"
    file.unlink() if listed is None else file.write_text(json.dumps(listed))
    target = tmp_path / "model"
    export_model(str(source), str(tokenizer), trained(source).items(), target, ends=ends)
    assert json.loads((target / "generation_config.json").read_text()).items() >= written.items()
    assert json.loads((target / "config.json").read_text())["vocab_size"] == 50
    generation = GenerationConfig.from_pretrained(target)
    assert generation.eos_token_id == written["eos_token_id"]
    assert load_model(str(target), "float32").generation_config.eos_token_id == written["eos_token_id"]
