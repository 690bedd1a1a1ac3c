"""The files of a model folder: one list for the checks, the hashes, the export and the copies. Imports no torch."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from continual.errors import ConfigurationError, one_line
from continual.errors.json_text import load_json
from continual.store.files import hash_files
from continual.store.places import is_name

VOCABULARY = (
    "tokenizer.json", "*.model", "*.model.v[0-9]*", "*.tiktoken", "tekken.json", "vocab.json", "vocab.txt", "vocab.bpe",
    "encoder.json",
)  # fmt: skip
"""A file that matches any of these holds a vocabulary."""
TOKENIZER = (
    *VOCABULARY, "vocab.*", "vocab-*.json", "*_vocab.json", "*.spm", "*.tokenizer", "merges.txt", "bpe.codes",
    "dict.txt", "byte_maps.json", "emoji.json", "normalizer.json", "word_*.json", "added_tokens.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.*", "*.jinja",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
PROCESSOR = ("*processor_config.json", "audio_tokenizer_config.json")
"""What prepares images, video and sound for a model that has more than text."""
CONFIGURATION = ("config.json", "generation_config.json")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "model*.bin")
INDEX = ".index.json"
ADAPTER = "adapter_config.json"
WITH_WEIGHTS = ("*.index.json", "adapter_*")
"""transformers loads an adapter that lies next to the weights on top of them."""


def matching(folder: str | Path, patterns: Iterable[str]) -> list[Path]:
    """Return the folder's files that match a pattern, sorted and without hidden ones."""
    paths = {path for pattern in patterns for path in Path(folder).glob(pattern)}
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def has_vocabulary(folder: str | Path) -> bool:
    """Return whether a folder holds the vocabulary of a tokenizer."""
    return bool(matching(folder, VOCABULARY))


def tokenizer_files(folder: str | Path) -> list[Path]:
    return matching(folder, TOKENIZER)


def loaded_files(folder: str | Path) -> list[Path]:
    """Return the files with weights that transformers loads: the first of its layouts that is there.

    Raises ConfigurationError for an index that is damaged or names files outside the folder.
    """
    folder = Path(folder)
    named = _named_by_configuration(folder)
    if named is not None and not named.endswith(INDEX):
        return [folder / named]
    if named is not None:
        return [folder / part for part in sorted(set(weight_map(folder / named).values()))]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / part for part in sorted(set(weight_map(index).values()))]
    return []


def _named_by_configuration(folder: Path) -> str | None:
    """Return the file, or index of files, that config.json names in place of the usual ones."""
    named = None
    with suppress(OSError, ValueError, AttributeError):  # it is checked where it is read
        named = load_json(folder / "config.json").get("transformers_weights")
    if not isinstance(named, str):
        return None
    if not is_name(named):
        problem = f"`transformers_weights` of {folder}/config.json names {named}, which is not in that folder"
        raise ConfigurationError("", problem, "put the weights beside config.json, and name them without a path")
    return named


def weight_map(index: Path) -> dict[str, str]:
    """Return which file holds a tensor, by the tensor's name, as an index of weights says.

    Raises ConfigurationError for an index that does not say it.
    """
    try:
        content = load_json(index)
    except (OSError, ValueError) as error:
        raise ConfigurationError("", f"{index} is damaged ({one_line(error)})", "copy the file again") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        problem = f"{index} has no `weight_map` that names the file of every tensor"
        raise ConfigurationError("", problem, "copy the file again, or save the model with `model.save_pretrained`")
    if (outside := next((name for name in files.values() if not is_name(name)), None)) is not None:
        problem = f"{index} names {outside}, which is not in its folder"
        raise ConfigurationError("", problem, "put all weights beside their index, and name them without a path")
    return files


def check_shards(folder: str | Path) -> None:
    """Raise ConfigurationError if a tensor is in two of a folder's files, or in another one than the index says.

    transformers loads all that the files hold, so which of two is taken would be left to their order. Reads headers.
    """
    index = Path(folder, "model.safetensors.index.json")
    if index.with_name("model.safetensors").is_file() or not index.is_file():
        return
    listed = weight_map(index)
    holds: dict[str, str] = {}
    for name in sorted(set(listed.values())):
        for tensor in _tensors(index.with_name(name)):
            other = holds.setdefault(tensor, name)
            if other != name:
                problem = f"`{tensor}` is in two files of {folder}, {other} and {name}"
                raise ConfigurationError("", problem, "copy the weights again, or remove it from one of them")
    for tensor, name in holds.items():
        if (said := listed.get(tensor, name)) != name:
            problem = f"`{tensor}` is in {name} of {folder}, and {index.name} says {said}"
            raise ConfigurationError("", problem, "copy the weights and their index again")


def _tensors(file: Path) -> list[str]:
    """Return the names of the tensors in a file."""
    try:
        with safe_open(file, "np") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigurationError("", f"{file} is damaged or missing ({one_line(error)})", "copy it again") from error


def weight_files(folder: str | Path) -> list[Path]:
    """Return the files with the weights of the model itself, without those of an adapter."""
    return [path for path in _with_loaded(folder, WEIGHTS) if not path.name.startswith("adapter_")]


def model_files(folder: str | Path) -> list[Path]:
    """Return everything that decides what a model folder computes: weights, configuration, tokenizer and processor."""
    return _with_loaded(folder, (*WEIGHTS, *WITH_WEIGHTS, *CONFIGURATION, *TOKENIZER, *PROCESSOR))


def _with_loaded(folder: str | Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files that match, and those that are loaded whatever they are called."""
    loaded: list[Path] = []
    with suppress(ConfigurationError):  # loading refuses it
        loaded = [path for path in loaded_files(folder) if path.is_file()]
    return sorted({*matching(folder, patterns), *loaded})


def tokenizer_hash(folder: str | Path) -> str:
    return hash_files(folder, tokenizer_files(folder))


def model_hash(folder: str | Path) -> str:
    """Return the address of a model folder's content: its weights, configuration, tokenizer and processor."""
    return hash_files(folder, model_files(folder))


def copy_settings(source: str | Path, target: Path) -> None:
    """Copy everything but the weights: configuration, generation settings, tokenizer and processor."""
    copy_files(source, target, (*CONFIGURATION, *TOKENIZER, *PROCESSOR))


def copy_files(source: str | Path, target: Path, patterns: Iterable[str]) -> None:
    """Copy the files that match byte for byte: a re-saved tokenizer may hash, or even tokenize, differently."""
    for path in matching(source, patterns):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
