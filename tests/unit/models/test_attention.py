"""Which attention is chosen where, and that packed documents stay apart under every one that a CPU can run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from continual.config.schema import Train
from continual.errors import ConfigurationError
from continual.models import attention as module
from continual.models import load_model
from continual.models.attention import BY_DOCUMENT, KERNELS, UNMASKED, Workers, attention_of, resolve, use_attention
from continual.models.forward import check_head, document_borders, hidden_states
from continual.testing.loop import CPU
from continual.training.isolation import check_isolation
from continual.training.module import LossModule
from continual.training.strategies.ddp import Ddp
from tests.kits import flash
from tests.kits.families import TRAINED, WIDE, family, with_vision
from tests.kits.models import SIZES
from tests.kits.weights import saved

ALL = dict.fromkeys(
    ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend"), True
)
KINDS: dict[str, dict[str, Any]] = {
    "all": ALL,
    "no flash": {**ALL, "_supports_flash_attn": False},
    "keeps its options": {**ALL, "_supports_attention_backend": False},
    "only sdpa": {**ALL, "_supports_flash_attn": False, "_supports_flex_attn": False},
    "only eager": dict.fromkeys(ALL, False),
    "only its own flash": {**ALL, "_compatible_flash_implementations": ["kernels-community/vllm-flash-attn3"]},
}
WIDE_HEADS = LlamaConfig(**{**SIZES, "hidden_size": 256})
CPU_ONLY, GPU, GPU_BFLOAT16 = Workers(False, "bfloat16"), Workers(True, "float32"), Workers(True, "bfloat16")
COMPILED = Workers(False, "float32", compiled=True)
FA2, FA3, FLEX = "flash_attention_2", "flash_attention_3", "flex_attention"


def kind(name: str) -> Any:
    return type("Model", (), KINDS[name])


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kinds of flash attention that seem to be installed."""
    names: set[str] = set()
    monkeypatch.setattr(module, "installed", lambda name: name in names)
    return names


@pytest.mark.parametrize(
    ("workers", "there", "model", "chosen"),
    [
        (CPU_ONLY, {FA2, FA3}, "all", BY_DOCUMENT),
        (CPU_ONLY, set(), "no flash", "sdpa"),
        (CPU_ONLY, set(), "keeps its options", "sdpa"),
        (COMPILED, set(), "all", "sdpa"),
        (CPU_ONLY, {FA2, FA3}, "only eager", "eager"),
        (GPU_BFLOAT16, {FA2, FA3}, "all", FA3),
        (GPU_BFLOAT16, {FA2}, "all", FA2),
        (GPU_BFLOAT16, set(), "all", FLEX),
        (GPU_BFLOAT16, {FA2, FA3}, "no flash", FLEX),
        (GPU_BFLOAT16, {FA2, FA3}, "only its own flash", FLEX),
        (GPU_BFLOAT16, {FA2, FA3}, "only sdpa", "sdpa"),
        (GPU_BFLOAT16, {FA2, FA3}, "only eager", "eager"),
        (GPU, {FA2, FA3}, "all", FLEX),
        (GPU, {FA2, FA3}, "only sdpa", "sdpa"),
    ],
)
def test_auto(packages: set[str], workers: Workers, there: set[str], model: str, chosen: str) -> None:
    packages |= there
    found = resolve("auto", workers, kind(model), WIDE_HEADS)
    assert found.name == chosen
    assert found.why


def test_auto_passes_over_kernels_that_draw_no_dropout_and_heads_that_are_too_small(packages: set[str]) -> None:
    packages |= {FA2, FA3}
    drawing = GPT2Config(n_embd=256, n_head=4)  # attn_pdrop is 0.1 unless it is said
    assert resolve("auto", GPU_BFLOAT16, kind("all"), drawing).name == FA2
    assert resolve("auto", GPU, kind("all"), drawing).name == "sdpa"
    assert "attn_pdrop: 0.1" in resolve("auto", GPU, kind("all"), drawing).why
    assert resolve("auto", GPU, kind("all"), LlamaConfig(**SIZES)).name == "sdpa"  # heads of 8 dimensions


@pytest.mark.parametrize(
    ("wanted", "workers", "model", "words"),
    [
        (FA2, CPU_ONLY, "all", "the workers train on CPUs; write auto"),
        (FLEX, CPU_ONLY, "all", "the workers train on CPUs; write auto"),
        (BY_DOCUMENT, GPU, "all", "the workers train on GPUs; write auto"),
        (BY_DOCUMENT, COMPILED, "all", "`train.compile` is true; write auto"),
        (BY_DOCUMENT, CPU_ONLY, "only eager", "`by_document` is not made for Model; write auto"),
        (FA2, GPU, "all", "`train.precision` is float32; write auto, or `bfloat16`"),
        (FA3, GPU_BFLOAT16, "all", "needs the package `flash-attn-3`, which is not installed; install it"),
        (FA2, GPU_BFLOAT16, "no flash", "`flash_attention_2` is not made for Model; write auto"),
        (FLEX, GPU, "only sdpa", "`flex_attention` is not made for Model"),
        ("sdpa", CPU_ONLY, "only eager", "`sdpa` is not made for Model"),
    ],
)
def test_a_named_one_that_does_not_run_is_refused(
    packages: set[str], wanted: str, workers: Workers, model: str, words: str
) -> None:
    packages.add(FA2)
    with pytest.raises(ConfigurationError, match=r"model\.attention: ") as caught:
        resolve(wanted, workers, kind(model), WIDE_HEADS)
    assert words in str(caught.value)


@pytest.mark.parametrize(("wanted", "workers"), [("eager", CPU_ONLY), ("sdpa", GPU), (FA2, GPU_BFLOAT16), (FLEX, GPU)])
def test_a_named_one_that_runs_is_taken(packages: set[str], wanted: str, workers: Workers) -> None:
    packages.add(FA2)
    assert resolve(wanted, workers, kind("all"), WIDE_HEADS).name == wanted


def test_transformers_says_of_its_classes_what_the_rule_reads(packages: set[str]) -> None:
    packages.add(FA2)
    llama = type(family("Llama", **SIZES))
    assert resolve("auto", GPU_BFLOAT16, llama, WIDE_HEADS).name == FA2
    assert resolve("auto", GPU, llama, WIDE_HEADS).name == FLEX


def test_flash_attention_is_not_installed_on_this_machine() -> None:
    """Its check needs no GPU; where it is installed this test says so."""
    import importlib.util

    assert module.installed(FA2) == (importlib.util.find_spec("flash_attn") is not None)
    assert module.installed(FA3) == (importlib.util.find_spec("flash_attn_interface") is not None)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels in plain torch: flash attention's functions, and flex attention without its compiler."""
    flash.on_cpu(monkeypatch)
    # Its kernels have no backward pass on CPUs; what it computes without them has.
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    with torch.compiler.set_stance("force_eager"):
        yield


def documents() -> list[list[int]]:
    """Two rows of equal length, with documents longer than a sliding window, a single token, and neighbours."""
    random = torch.Generator().manual_seed(3)
    return [torch.randint(1, 50, (n,), generator=random).tolist() for n in (20, 1, 9, 3, 3, 24)]


def packed() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([token for document in documents() for token in document]).view(2, 30)
    positions = torch.cat([torch.arange(len(document)) for document in documents()]).view(2, 30)
    return ids, positions


def through(model: Any, alone: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the hidden states of the documents, and the gradients of a sum that tells all of them apart."""
    model.zero_grad()
    if alone:
        parts = [torch.tensor([document]) for document in documents()]
        hidden = torch.cat([hidden_states(model, ids, torch.arange(ids.shape[1])[None]) for ids in parts])
    else:
        hidden = hidden_states(model, *packed())
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma2", "Gemma3Text"])
@pytest.mark.parametrize("attention", ["eager", "sdpa", BY_DOCUMENT, FA2, FLEX])
def test_packed_documents_compute_what_they_do_alone(kernels: None, name: str, attention: str) -> None:
    sizes = TRAINED[name] | ({"sliding_window": 16} if name == "Gemma2" else {})
    model = family(name, **sizes).train()
    if name == "Gemma2" and attention in ("sdpa", BY_DOCUMENT):  # there is none for scores with a soft cap
        if attention == "sdpa":
            with pytest.raises(ConfigurationError, match=r"does not run with `sdpa` here .*; write eager"):
                use_attention(model, attention)
        with pytest.raises(ConfigurationError, match=f"`{attention}` is not made for Gemma2ForCausalLM"):
            resolve(attention, CPU_ONLY, type(model), model.config)
        return
    use_attention(model, "eager")
    expected, slopes = through(model, alone=True)
    use_attention(model, attention)
    assert attention_of(model) == attention
    found, gradients = through(model, alone=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert gradients.keys() == slopes.keys()
    for parameter, slope in slopes.items():
        scale = float(slope.abs().max().clamp(min=1.0))
        torch.testing.assert_close(gradients[parameter] / scale, slope / scale, rtol=0, atol=1e-5, msg=parameter)


def test_flash_attention_needs_to_be_told_the_borders_of_several_rows(
    kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What transformers does by itself is right for one row alone: without our borders documents see each other."""
    model = family("Llama", **SIZES)
    use_attention(model, FA2)
    check_head(model)
    for place in ("models.forward", "training.layout"):
        monkeypatch.setattr(f"continual.{place}.document_borders", lambda positions: {})
    with pytest.raises(ConfigurationError, match=r"see each other \(attention `flash_attention_2`\)"):
        check_head(model)
    strategy = Ddp(Train(), LossModule(model.train(), 8, None), CPU, 1)
    with pytest.raises(ConfigurationError, match=r"model\.attention: packed documents of LlamaForCausalLM"):
        check_isolation(strategy, CPU)


@pytest.mark.parametrize("attention", ["eager", "sdpa", BY_DOCUMENT, FA2, FLEX])
def test_the_check_beside_the_training_accepts_and_leaves_all_as_it_was(kernels: None, attention: str) -> None:
    model = family("Llama", **SIZES).train()
    use_attention(model, attention)
    strategy = Ddp(Train(), LossModule(model, 8, torch.bfloat16), CPU, 1)
    state = torch.get_rng_state()
    check_isolation(strategy, CPU)
    assert (model.training, attention_of(model)) == (True, attention)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_check_finds_a_kernel_that_computes_something_else(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family("Llama", **SIZES).train()
    use_attention(model, FA2)
    strategy = Ddp(Train(), LossModule(model, 8, torch.bfloat16), CPU, 1)
    attend = flash.attend
    monkeypatch.setattr(flash, "attend", lambda q, k, v, *options: attend(q, k, v.roll(1, 1), *options))
    with pytest.raises(ConfigurationError, match="do not compute what they do alone"):
        check_isolation(strategy, CPU)

    def broken(*_: Any) -> None:
        raise RuntimeError("head dimension 8 is not supported")

    monkeypatch.setattr(flash, "attend", broken)
    with pytest.raises(ConfigurationError, match=r"head dimension 8 is not supported\); write sdpa"):
        check_isolation(strategy, CPU)


def test_borders_of_rows() -> None:
    borders = document_borders(torch.tensor([[0, 1, 2, 0], [0, 0, 1, 2]]))
    assert borders["cu_seq_lens_q"].tolist() == [0, 3, 4, 5, 8]
    assert borders["max_length_q"] == 3


def test_a_vision_tower_keeps_its_own_attention() -> None:
    model = with_vision()
    use_attention(model, "eager")
    assert attention_of(model) == "eager"
    assert model.get_decoder().config._attn_implementation == "eager"
    assert model.config.vision_config._attn_implementation == "sdpa"


def test_a_model_is_loaded_with_it(tmp_path: Path) -> None:
    saved(tmp_path, family("Llama", **SIZES))
    assert attention_of(load_model(str(tmp_path), "float32")) == "sdpa"
    assert attention_of(load_model(str(tmp_path), "float32", attention="eager")) == "eager"
    assert attention_of(load_model(str(tmp_path), "float32", "meta", "eager")) == "eager"
    with pytest.raises(
        ConfigurationError, match=r"model\.attention: LlamaForCausalLM does not run with `flash_attention"
    ):
        load_model(str(tmp_path), "float32", attention=FA2)


def test_a_class_whose_attention_cannot_be_chosen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = family("Llama", **WIDE)
    monkeypatch.setattr(model, "set_attn_implementation", lambda _: None)
    with pytest.raises(ConfigurationError, match="does not let `eager` be chosen"):
        use_attention(model, "eager")


def test_every_kernel_has_a_place_in_the_choice() -> None:
    assert {FA2, FA3, FLEX} == set(KERNELS) == set(UNMASKED) - {BY_DOCUMENT}
