"""The files of a model and of a tokenizer: what is accepted is copied and hashed, and nothing else is."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from continual.errors import ConfigurationError
from continual.models.architecture import read_config
from continual.models.files import (
    PROCESSOR,
    TOKENIZER,
    VOCABULARY,
    check_shards,
    copy_files,
    copy_settings,
    loaded_files,
    model_files,
    model_hash,
    tokenizer_files,
    tokenizer_hash,
    weight_files,
    weight_map,
)
from continual.preflight.model_facts import check_weights
from continual.preflight.tokenizer_facts import folder_tokenizer, read_json

KINDS = {
    "tokenizer.json": "tokenizer.json", "*.model": "spiece.model", "*.model.v[0-9]*": "tokenizer.model.v3",
    "*.tiktoken": "qwen.tiktoken", "tekken.json": "tekken.json", "vocab.json": "vocab.json", "vocab.txt": "vocab.txt",
    "vocab.bpe": "vocab.bpe", "encoder.json": "encoder.json",
}  # fmt: skip
"""A file of every kind of vocabulary that is accepted."""
OTHERS = (
    "merges.txt", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "additional_chat_templates/tools.jinja",
)  # fmt: skip
NEITHER = (
    "README.md",
    "manifest.json",
    "optimizer.pt",
    "training_args.bin",
    ".hidden.model",
    ".chat_template.jinja",
    "checkpoint-5/x.bin",
)


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_there_is_an_example_of_every_kind() -> None:
    assert tuple(KINDS) == VOCABULARY


@pytest.mark.parametrize(
    "vocabulary", [*KINDS.values(), "tokenizer.model", "sentencepiece.bpe.model", "tiktoken.model"]
)
def test_every_tokenizer_that_the_check_accepts_is_carried_whole(tmp_path: Path, vocabulary: str) -> None:
    source = fill(tmp_path / "source", vocabulary, *OTHERS, *NEITHER, "config.json", "model.safetensors")
    assert folder_tokenizer("model.source", source).folder == source
    target = tmp_path / "target"
    copy_files(source, target, TOKENIZER)
    assert names(target) == {vocabulary, *OTHERS}
    assert tokenizer_hash(target) == tokenizer_hash(source)
    assert folder_tokenizer("model.source", target).folder == target


@pytest.mark.parametrize("name", [*KINDS.values(), *OTHERS])
def test_a_tokenizer_file_decides_both_hashes(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path, *KINDS.values(), *OTHERS, "config.json")
    tokenizer, model = tokenizer_hash(folder), model_hash(folder)
    (folder / name).write_text("[]")
    assert tokenizer_hash(folder) != tokenizer
    assert model_hash(folder) != model


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json",
                                  "adapter_config.json", "adapter_model.safetensors", "config.json",
                                  "generation_config.json", "processor_config.json", "preprocessor_config.json",
                                  "video_preprocessor_config.json"])  # fmt: skip
def test_weights_and_configuration_decide_the_hash_of_the_model_alone(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path, "tokenizer.json", name)
    tokenizer, model = tokenizer_hash(folder), model_hash(folder)
    (folder / name).write_text("[]")
    assert tokenizer_hash(folder) == tokenizer
    assert model_hash(folder) != model


def test_weights_of_an_adapter_are_not_the_models_own(tmp_path: Path) -> None:
    folder = fill(tmp_path, "model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", *NEITHER)
    assert [path.name for path in weight_files(folder)] == ["model.safetensors", "pytorch_model.bin"]


def test_other_files_decide_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path, "tokenizer.json", "model.safetensors", "config.json")
    expected = model_hash(folder), tokenizer_hash(folder)
    fill(folder, *NEITHER)
    assert (model_hash(folder), tokenizer_hash(folder)) == expected


def test_settings_are_all_but_the_weights(tmp_path: Path) -> None:
    weights = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json")
    processor = ("processor_config.json", "preprocessor_config.json")
    settings = ("config.json", "generation_config.json", "tokenizer.json", *processor, *OTHERS)
    source = fill(tmp_path / "source", *weights, *settings, *NEITHER)
    copy_settings(source, tmp_path / "target")
    assert names(tmp_path / "target") == set(settings)
    assert {path.name for path in model_files(source)} == {Path(name).name for name in (*weights, *settings)}


def test_a_missing_folder_has_no_files(tmp_path: Path) -> None:
    assert tokenizer_files(tmp_path / "absent") == []


def test_every_file_that_a_tokenizer_of_transformers_names_is_carried(tmp_path: Path) -> None:
    """The library's own list, from the classes of all tokenizers that it has."""
    import transformers
    from transformers import utils
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    named: set[str] = {utils.CHAT_TEMPLATE_FILE, utils.LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE}
    for name in {name for name in TOKENIZER_MAPPING_NAMES.values() if name}:
        with contextlib.suppress(ImportError, ModuleNotFoundError):
            listed = (getattr(getattr(transformers, name), "vocab_files_names", None) or {}).values()
            named |= {file for one in listed for file in ([one] if isinstance(one, str) else one)}
    assert {"tokenizer.json", "tokenizer.model", "merges.txt"} < named
    assert {path.name for path in tokenizer_files(fill(tmp_path, *named))} == named


def test_every_processor_file_of_transformers_is_carried(tmp_path: Path) -> None:
    from transformers import utils

    named = {utils.PROCESSOR_NAME, utils.IMAGE_PROCESSOR_NAME, utils.FEATURE_EXTRACTOR_NAME, utils.VIDEO_PROCESSOR_NAME}
    copy_settings(fill(tmp_path / "source", *named, utils.AUDIO_TOKENIZER_NAME), tmp_path / "target")
    assert names(tmp_path / "target") == {*named, utils.AUDIO_TOKENIZER_NAME}


@pytest.mark.parametrize(
    ("there", "loaded"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "consolidated.safetensors"], ["pytorch_model.bin"]),
        (["consolidated.safetensors"], []),
    ],
)
def test_the_files_that_are_loaded_are_those_of_transformers(
    tmp_path: Path, there: list[str], loaded: list[str]
) -> None:
    assert loaded_files(fill(tmp_path, *there)) == [tmp_path / name for name in loaded]


def test_an_index_names_the_files_that_are_loaded(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in loaded_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("pytorch_model.bin.index.json", {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "other.01.bin"}},
         ["pytorch_model-00001-of-00002.bin", "other.01.bin"]),
        ("model.safetensors.index.json", {"weight_map": {"a": "first", "b": "second.pt"}}, ["first", "second.pt"]),
        ("config.json", {"transformers_weights": "mine"}, ["mine"]),
    ],
)  # fmt: skip
def test_weights_of_any_name_decide_the_hash(
    tmp_path: Path, file: str, content: dict[str, Any], parts: list[str]
) -> None:
    fill(tmp_path, *parts)
    (tmp_path / file).write_text(json.dumps(content))
    assert {path.name for path in weight_files(tmp_path)} == set(parts)
    for name in parts:
        before, text = model_hash(tmp_path), (tmp_path / name).read_text()
        (tmp_path / name).write_text(f"{text}.")
        assert model_hash(tmp_path) != before
        (tmp_path / name).write_text(text)
        assert model_hash(tmp_path) == before


@pytest.mark.parametrize("outside", ["parts/a.safetensors", "../a.safetensors", "/tmp/a.safetensors", ".."])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors.index.json", {"weight_map": {"a": "a.safetensors", "b": "OUTSIDE"}}),
        ("pytorch_model.bin.index.json", {"weight_map": {"b": "OUTSIDE"}}),
        ("config.json", {"transformers_weights": "OUTSIDE"}),
    ],
)
def test_weights_in_another_folder_are_refused(
    tmp_path: Path, file: str, content: dict[str, Any], outside: str
) -> None:
    fill(tmp_path, "a.safetensors")
    (tmp_path / file).write_text(json.dumps(content).replace("OUTSIDE", outside))
    with pytest.raises(ConfigurationError, match=rf"names {outside}, which is not in (its|that) folder; put"):
        loaded_files(tmp_path)
    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigurationError, match=rf"model\.source.*names {outside}"):
        check_weights(tmp_path)


def test_the_list_has_no_doubles_and_imports_no_torch() -> None:
    assert len({*TOKENIZER, *PROCESSOR}) == len(TOKENIZER) + len(PROCESSOR)
    code = "import sys, continual.models.files; assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def sharded(folder: Path, first: tuple[str, ...], second: tuple[str, ...], listed: dict[str, str]) -> Path:
    for name, tensors in (("one", first), ("two", second)):
        save_file({tensor: np.zeros(1) for tensor in tensors}, folder / f"{name}.safetensors")
    content = {"weight_map": {tensor: f"{name}.safetensors" for tensor, name in listed.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


def test_tensors_where_the_index_says_are_accepted(tmp_path: Path) -> None:
    check_shards(sharded(tmp_path, ("a",), ("b", "unlisted"), {"a": "one", "b": "two"}))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path, ("a", "b"), ("b",), {"a": "one", "b": "two"})
    with pytest.raises(ConfigurationError, match=r"`b` is in two files .*one\.safetensors and two\.safetensors"):
        check_shards(tmp_path)


def test_a_tensor_in_another_file_than_the_index_says_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path, ("a", "c"), ("b",), {"a": "one", "b": "two", "c": "two"})
    with pytest.raises(ConfigurationError, match=r"`c` is in one\.safetensors .*says two\.safetensors"):
        check_shards(tmp_path)
    with pytest.raises(ConfigurationError, match=r"model\.source.*`c`"):
        check_weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    for check in (loaded_files, check_weights):
        with pytest.raises(ConfigurationError, match=r"model\.safetensors\.index\.json"):
            check(tmp_path)


@pytest.mark.parametrize("name", ["index", "config.json", "tokenizer.json"])
def test_json_of_any_depth_is_a_sentence(tmp_path: Path, name: str) -> None:
    """Python's reader gives up on 100,000 brackets with an error that is no ValueError."""
    file = tmp_path / name
    file.write_text("[" * 100_000)
    read = {
        "index": lambda: weight_map(file),
        "config.json": lambda: read_config(str(tmp_path)),
        "tokenizer.json": lambda: read_json("model", file),
    }[name]
    with pytest.raises(ConfigurationError, match="is damaged"):
        read()


@pytest.mark.parametrize("name", ["num_hidden_layers", "n_layer"])
def test_more_layers_than_can_be_laid_out_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", name: 10**9}))
    with pytest.raises(ConfigurationError, match=f"`{name}: 1000000000` is more than 300"):
        read_config(str(tmp_path))


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", "x" * 300])
def test_an_index_that_names_no_file_at_all_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    for read in (loaded_files, check_shards):
        with pytest.raises(ConfigurationError, match="which is not in its folder"):
            read(tmp_path)
