"""The files of a model and of a tokenizer: what is accepted is copied and hashed, and nothing else is."""

import subprocess
import sys
from pathlib import Path

import pytest

from continual.models.files import (
    TOKENIZER,
    VOCABULARY,
    copy_files,
    copy_settings,
    model_files,
    model_hash,
    tokenizer_files,
    tokenizer_hash,
    weight_files,
)
from continual.preflight.tokenizer_facts import folder_tokenizer

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


@pytest.mark.parametrize("vocabulary", VOCABULARY)
def test_every_tokenizer_that_the_check_accepts_is_carried_whole(tmp_path: Path, vocabulary: str) -> None:
    source = fill(tmp_path / "source", vocabulary, *OTHERS, *NEITHER, "config.json", "model.safetensors")
    assert folder_tokenizer("model.source", source).folder == source
    target = tmp_path / "target"
    copy_files(source, target, TOKENIZER)
    assert names(target) == {vocabulary, *OTHERS}
    assert tokenizer_hash(target) == tokenizer_hash(source)
    assert folder_tokenizer("model.source", target).folder == target


@pytest.mark.parametrize("name", [*VOCABULARY, *OTHERS])
def test_a_tokenizer_file_decides_both_hashes(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path, *VOCABULARY, *OTHERS, "config.json")
    tokenizer, model = tokenizer_hash(folder), model_hash(folder)
    (folder / name).write_text("[]")
    assert tokenizer_hash(folder) != tokenizer
    assert model_hash(folder) != model


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json",
                                  "adapter_config.json", "adapter_model.safetensors", "config.json",
                                  "generation_config.json"])  # fmt: skip
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
    settings = ("config.json", "generation_config.json", "tokenizer.json", *OTHERS)
    source = fill(tmp_path / "source", *weights, *settings, *NEITHER)
    copy_settings(source, tmp_path / "target")
    assert names(tmp_path / "target") == set(settings)
    assert {path.name for path in model_files(source)} == {Path(name).name for name in (*weights, *settings)}


def test_a_missing_folder_has_no_files(tmp_path: Path) -> None:
    assert tokenizer_files(tmp_path / "absent") == []


def test_the_list_has_no_doubles_and_imports_no_torch() -> None:
    assert len(set(TOKENIZER)) == len(TOKENIZER)
    code = "import sys, continual.models.files; assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
