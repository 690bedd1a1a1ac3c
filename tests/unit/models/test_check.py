"""Which models can be trained here is found before the start: from files, from a small copy, from the weights."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, OPTConfig, PreTrainedModel, Qwen3Config

from continual.errors import ConfigurationError
from continual.models import check
from continual.models.check import check_files, check_weights, small_copy
from continual.models.load import load_model
from continual.models.trainable import freeze_unreached
from tests.kits.families import REFUSED, TRAINED, family, with_vision
from tests.kits.models import tiny
from tests.kits.weights import Tensors, change_config, change_weights, saved

LARGE: dict[str, Any] = {"vocab_size": 30_000, "num_hidden_layers": 12, "num_attention_heads": 16}


@pytest.mark.parametrize("name", TRAINED)
def test_families_that_are_trained_pass_and_load_again(tmp_path: Path, name: str) -> None:
    model = family(name, **TRAINED[name])
    folder = str(saved(tmp_path / "model", model))
    assert check_files(folder) == []
    loaded = load_model(folder, "float32").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", REFUSED)
def test_other_families_are_refused_with_class_and_reason(tmp_path: Path, name: str) -> None:
    sizes, reason = REFUSED[name]
    model = family(name, **sizes)
    folder = str(saved(tmp_path / "model", model))
    for checked in (check_files, check_weights):
        with pytest.raises(ConfigurationError, match=f"{type(model).__name__}.*") as raised:
            checked(folder)
        assert reason in str(raised.value)


@pytest.mark.parametrize("name", ["OPT", "GptOss", "Qwen3_5Text"])
def test_a_model_too_large_to_be_run_is_judged_by_a_small_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sizes, reason = REFUSED[name]
    folder = saved(tmp_path / "model", family(name, **sizes))
    # Only headers may be read: the numbers would not do.
    change_weights(folder, lambda tensors: {key: value * float("nan") for key, value in tensors.items()})
    monkeypatch.setattr(check, "SMALL", 100)
    with pytest.raises(ConfigurationError, match=reason):
        check_files(str(folder))


def on_meta(config: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def test_a_small_copy_has_a_layer_of_every_kind_and_is_quick() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    model = on_meta(Gemma3TextConfig(**LARGE, hidden_size=1024, layer_types=kinds * 2))
    started = time.process_time()
    small = small_copy(model)
    assert time.process_time() - started < 10
    assert small.config.layer_types == ["sliding_attention", "sliding_attention", "full_attention"]
    assert small.config.num_hidden_layers == len(small.model.layers) == 3
    assert model.config.num_hidden_layers == 12
    assert small.config.hidden_size == model.config.hidden_size


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**LARGE, hidden_size=1024),
        Qwen3Config(**LARGE, hidden_size=1024, num_key_value_heads=8),
        GPT2Config(n_layer=24, n_embd=1024, n_head=16),
        OPTConfig(**LARGE, hidden_size=1024, ffn_dim=4096),
    ],
)
def test_a_small_copy_of_common_families_can_be_made(config: Any) -> None:
    assert small_copy(on_meta(config)) is not None


def test_a_copy_that_would_not_be_small_is_left_to_the_weights() -> None:
    assert small_copy(on_meta(LlamaConfig(**LARGE, hidden_size=16384))) is None


def broken(key: str, value: float) -> Any:
    def change(tensors: Tensors) -> Tensors:
        tensors[key].view(-1)[3] = value
        return tensors

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    folder = saved(tmp_path / "model")
    key = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, broken(key, value))
    with pytest.raises(ConfigurationError, match=f"not finite, the first in `{key}`"):
        check_files(str(folder))


def test_weights_that_overflow_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    change_weights(folder, broken("lm_head.weight", 3e38))
    with pytest.raises(ConfigurationError, match="not finite"):
        check_files(str(folder))


def test_a_class_that_transformers_does_not_have_is_noted(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    change_config(folder, architectures=["LLaMAForCausalLM"])
    [note] = check_files(str(folder))
    assert "names the class LLaMAForCausalLM: it is loaded as LlamaForCausalLM" in note


def test_code_of_its_own_that_is_not_run_is_noted(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})
    [note] = check_files(str(folder))
    assert "transformers' own LlamaForCausalLM is used" in note


@pytest.mark.parametrize("limit", [check.SMALL, 100])
def test_what_text_cannot_reach_is_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(check, "SMALL", limit)
    model = with_vision()
    parts = (model.model.vision_tower, model.model.multi_modal_projector)
    count = sum(parameter.numel() for part in parts for parameter in part.parameters())
    [note] = check_files(str(saved(tmp_path / "model", model)))
    assert note.startswith(f"{count} parameters in ")
    assert "`vision_tower`, `multi_modal_projector`" in note


def test_parameters_that_text_cannot_reach_are_frozen_and_no_others() -> None:
    model = with_vision()
    frozen = freeze_unreached(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in frozen} == {"vision_tower", "multi_modal_projector"}
    assert {name.split(".")[1] for name in trained} == {"language_model"}
    assert len(frozen) + len(trained) == len(list(model.named_parameters()))


def test_freezing_leaves_text_models_and_what_is_frozen_alone() -> None:
    model = tiny()
    model.lm_head.weight.requires_grad_(False)
    assert freeze_unreached(model) == {}
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["lm_head.weight"]
