"""Models are loaded in one place, in eval mode, in the dtype that is asked for, with the tensors of their files."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from continual.errors import ConfigurationError
from continual.models import load_model
from tests.conftest import ROOT
from tests.kits.baselines import model_ref
from tests.kits.models import tiny
from tests.kits.weights import Tensors, change_config, change_weights, pickled, saved


def test_one_place_loads() -> None:
    rooms = ("continual", "baselines", "benchmarks")
    texts = {path: path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py")}
    call = re.compile(r"(\w+)\.from_pretrained\(")
    found = {(str(path.relative_to(ROOT)), name) for path, text in texts.items() for name in call.findall(text)}
    assert found == {
        ("continual/models/load.py", "AutoModelForCausalLM"),
        ("continual/models/load.py", "AutoTokenizer"),
        ("continual/models/architecture.py", "AutoConfig"),
    }


def test_a_model_is_loaded_in_eval_mode_and_its_dtype(tmp_path: Path) -> None:
    folder = model_ref(tmp_path / "model", 0).path
    model = load_model(folder, "bfloat16")
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "short")
    assert load_model(str(tmp_path / "short"), "auto").dtype == torch.bfloat16
    assert load_model(str(tmp_path / "short"), "float32").dtype == torch.float32


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_head=4, n_layer=2, n_positions=64))


def neox() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=4, max_position_embeddings=64))


@pytest.mark.parametrize("make", [tiny, gpt2, neox, lambda: tiny(tie_word_embeddings=True)])
def test_two_loads_are_equal_bit_by_bit_and_leave_the_random_state_alone(tmp_path: Path, make: Any) -> None:
    folder = str(saved(tmp_path / "model", make()))
    torch.manual_seed(1)
    first = load_model(folder, "float32")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = load_model(folder, "float32")
    assert torch.equal(torch.get_rng_state(), before)
    for kind in ("named_parameters", "named_buffers"):
        one, two = dict(getattr(first, kind)()), dict(getattr(second, kind)())
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(stock[name], value) for name, value in second.state_dict().items())


def under(prefix: str) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, lambda tensors: {prefix + key: x for key, x in tensors.items()})


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.endswith(names)}


HEAD, LAST = "lm_head.weight", "model.layers.1.self_attn.q_proj.weight"


def lose(*names: str) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, without(*names))


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_config(folder, **changes)


def inside(folder: Path) -> None:
    change_weights(folder, lambda x: {key.replace("layers.", "layers._orig_mod."): value for key, value in x.items()})


def student(folder: Path) -> None:
    under("student.")(folder)
    pickled(folder)


def one_more(folder: Path) -> None:
    change_weights(folder, lambda tensors: {**tensors, "score.weight": torch.zeros(2, 32)})


def body_renamed(tensors: Tensors) -> Tensors:
    return {key.replace("model.", "transformer."): value for key, value in tensors.items()}


def sharded(tensors: Tensors) -> Tensors:
    return {f"_fsdp_wrapped_module.{key}".replace("layers.", "layers._checkpoint_wrapped_module."): value
            for key, value in tensors.items()}  # fmt: skip


def adapted(tensors: Tensors) -> Tensors:
    based = {key.replace("q_proj.", "q_proj.base_layer."): value for key, value in tensors.items()}
    return based | {f"model.layers.{n}.self_attn.q_proj.lora_A.default.weight": torch.ones(4, 32) for n in range(2)}


PARTS = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight",
         "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight",
         "post_attention_layernorm.weight")  # fmt: skip
SPOILED: list[tuple[str, Callable[[Path], None], list[str]]] = [
    ("no head", lose(HEAD), [f"lack `{HEAD}`", "tie_word_embeddings: true"]),
    ("no attention", lose("q_proj.weight"), ["lack `model.layers.0.self_attn.q_proj.weight`", f"`{LAST}`;", "copy"]),
    ("compiled", under("_orig_mod."), ["hold `_orig_mod.lm_head.weight`", "(21 tensors)", "torch.compile"]),
    ("compiled inside", inside, ["`_orig_mod.`", "(18 tensors)", "torch.compile"]),
    ("adapter's base", under("base_model.model."), ["hold `base_model.model.lm_head.weight`", "PEFT"]),
    ("parallel", under("module."), ["hold `module.lm_head.weight`", "DistributedDataParallel"]),
    ("another prefix", student, ["hold `student.lm_head.weight`", "take `student.` out"]),
    ("a layer more", config(num_hidden_layers=3), ["`model.layers.2.input_layernorm.weight`", "num_hidden_layers: 2"]),
    ("a layer fewer", config(num_hidden_layers=1), ["`model.layers.1.input_layernorm.weight`", "num_hidden_layers: 2"]),
    ("another vocabulary", config(vocab_size=60), ["[50, 32] instead of [60, 32]", "vocab_size: 50"]),
    ("another width", config(intermediate_size=48), ["[64, 32] instead of [48, 32]", "(6 tensors)", "belong together"]),
    (
        "another body's name",
        lambda folder: change_weights(folder, body_renamed),
        ["`transformer.embed_tokens.weight`", "(20 tensors)", "copy"],
    ),
    ("sharded and checkpointed", lambda folder: change_weights(folder, sharded), ["(21 tensors)", "FSDP"]),
    ("adapters inside", lambda folder: change_weights(folder, adapted), ["q_proj.lora_A.default.weight`", "copy"]),
    ("the first layer gone", lose(*(f"layers.0.{part}" for part in PARTS)), ["layers.0.input_layernorm.weight`"]),
    ("other heads", config(num_key_value_heads=4), ["[16, 32] instead of [32, 32]", "(4 tensors)"]),
    ("a tensor more", one_more, ["hold `score.weight`, which it does not have"]),
]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None], words: list[str], device: str
) -> None:
    folder = saved(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ConfigurationError) as raised:
        load_model(str(folder), "float32", device)
    message = str(raised.value)
    assert str(folder) in message
    assert "\n" not in message
    for word in words:
        assert word in message


class Runs:
    """What a pickle may hold: a call."""

    def __reduce__(self) -> Any:
        return print, ("it ran",)


def raw(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the header of the weights."""

    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        data = file.read_bytes()
        [size] = struct.unpack("<Q", data[:8])
        header = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])

    return spoil


def beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def two_heads(folder: Path) -> None:
    change_config(folder, tie_word_embeddings=True)


def bytes_for_weights(folder: Path) -> None:
    change_weights(folder, lambda tensors: {key: value.to(torch.int8) for key, value in tensors.items()})


def elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


OWN = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
ODD: list[tuple[str, Callable[[Path], None], str]] = [
    ("unknown dtype", raw(lambda h: {**h, HEAD: {**h[HEAD], "dtype": "F33"}}), "F33"),
    ("negative offsets", raw(lambda h: {**h, HEAD: {**h[HEAD], "data_offsets": [-4, 4]}}), "-4"),
    ("header that is a list", raw(lambda h: [h]), "SafetensorError"),
    ("quantized", bytes_for_weights, "is int8"),
    ("quantized by its config", config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantized"),
    ("pickle with a call", lambda folder: pickled(folder, {HEAD: Runs()}), "could run code"),
    ("pickle with the weights inside", lambda folder: pickled(folder, {"state_dict": tiny().state_dict()}),
     "`state_dict`"),
    ("adapter beside", beside, "merge it"),
    ("a head of its own beside a tied one", two_heads, "tie_word_embeddings: false"),
    ("weights of another layout", elsewhere, "no weights that transformers finds"),
    ("no model type", config(model_type=...), "no `model_type`"),
    ("unknown model type", config(model_type="lama"), "no class for `model_type: lama`"),
    ("heads 0", config(num_attention_heads=0), "config.json"),
    ("width as text", config(hidden_size="32"), "hidden_size"),
    ("unknown activation", config(hidden_act="sillu"), "sillu"),
    ("code of its own", config(model_type="own", auto_map=OWN), "`auto_map`"),
    ("code of its own in a known family", config(auto_map=OWN), "`own.OwnModel`"),
    ("an encoder", config(architectures=["BertModel"], model_type="bert"), "BertLMHeadModel"),
    ("a classifier", config(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    ("an encoder-decoder", config(architectures=["T5ForConditionalGeneration"], model_type="t5"), "encoder-decoder"),
    ("half an encoder-decoder", config(architectures=["BartForConditionalGeneration"], model_type="bart"), "Bart"),
    ("vision and text", config(architectures=["Qwen2_5_VLForConditionalGeneration"], model_type="qwen2_5_vl"),
     "no causal language model"),
    ("a text model with eyes", config(architectures=["LlavaForConditionalGeneration"], model_type="llava"), "Llava"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_what_is_no_model_to_train_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: str
) -> None:
    folder = saved(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ConfigurationError) as raised:
        load_model(str(folder), "float32")
    message = str(raised.value)
    assert words in message
    assert str(folder) in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (tiny, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        (
            gpt2,
            {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64), "transformer.h.0.attn.masked_bias": torch.ones(1)},
        ),
        (neox, {"gpt_neox.layers.0.attention.masked_bias": torch.ones(1)}),
        (
            lambda: tiny(tie_word_embeddings=True),
            {"lm_head.weight": tiny(tie_word_embeddings=True).lm_head.weight.data},
        ),
    ],
)
def test_constants_that_old_versions_stored_and_a_second_copy_of_the_head_are_right(
    tmp_path: Path, make: Any, more: Tensors
) -> None:
    folder = saved(tmp_path / "model", make())
    change_weights(folder, lambda tensors: tensors | more)
    found = load_model(str(folder), "float32").state_dict()
    assert all(torch.equal(found[name], value) for name, value in make().state_dict().items())


@pytest.mark.parametrize("prefix", ["", "model.model."])
def test_names_that_transformers_understands_are_right(tmp_path: Path, prefix: str) -> None:
    folder = saved(tmp_path / "model")
    change_weights(folder, lambda x: {key.replace("model.", prefix): value for key, value in x.items()})
    found = load_model(str(folder), "float32").state_dict()
    assert all(torch.equal(found[name], value) for name, value in tiny().state_dict().items())


def test_the_fix_names_the_key_of_the_family(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", gpt2())
    change_config(folder, n_layer=3)
    with pytest.raises(ConfigurationError, match="write `n_layer: 2` there"):
        load_model(str(folder), "float32")


def test_a_pickle_of_the_right_tensors_is_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    expected = load_model(str(folder), "float32").state_dict()
    pickled(folder)
    found = load_model(str(folder), "float32").state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_code_that_the_library_has_taken_over_is_accepted(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})
    assert type(load_model(str(folder), "float32")).__name__ == "LlamaForCausalLM"


def test_a_model_in_parts_is_loaded_whole_and_refused_without_one_of_its_tensors(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny().save_pretrained(folder, max_shard_size="20KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 2
    found = load_model(str(folder), "float32").state_dict()
    assert all(torch.equal(found[name], value) for name, value in tiny().state_dict().items())
    lost, *kept = load_file(parts[1]).items()
    save_file(dict(kept), parts[1], {"format": "pt"})
    for device in ("meta", "cpu"):
        with pytest.raises(ConfigurationError, match=f"lack `{lost[0]}`"):
            load_model(str(folder), "float32", device)


def test_on_the_meta_device_no_weight_is_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-100:] = bytes(100)
    file.write_bytes(bytes(data))
    model = load_model(str(folder), "float32", "meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model")
    capfd.readouterr()
    load_model(str(folder), "float32")
    assert capfd.readouterr() == ("", "")
