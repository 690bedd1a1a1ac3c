"""Facts about a tokenizer, read from its files without transformers, whose tokenizers import torch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from continual.config.references import call
from continual.config.schema import ModelSource
from continual.errors import ConfigurationError, one_line
from continual.errors.json_text import load_json
from continual.models.files import has_vocabulary

GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Tokenizer classes that have no special tokens except those in their configuration."""


@dataclass(frozen=True)
class TokenizerFacts:
    """Vocabulary, special tokens and chat template of a tokenizer.

    Attributes:
        vocabulary: Ids by token, with added tokens; None if only transformers can read it.
        bos: The beginning-of-sequence token, or None.
        eos: The end-of-text token, or None.
        certain: False if the tokenizer class may add a `bos` or `eos` that the files do not show.
        chat_template: Whether it has one.
        folder: The folder with its files, if it has one.
        built: The `tokenizers.Tokenizer` that the user's function returned, if there is one.
    """

    vocabulary: dict[str, int] | None
    bos: str | None
    eos: str | None
    certain: bool
    chat_template: bool
    folder: Path | None = None
    built: Any = None

    @cached_property
    def tokenizer(self) -> Any:
        """A `tokenizers.Tokenizer` for estimates, or None. A vocabulary with merges alone splits text as GPT-2 does."""
        if self.built is not None or self.folder is None:
            return self.built
        from tokenizers import Tokenizer, models, pre_tokenizers

        try:
            if (self.folder / "tokenizer.json").is_file():
                return Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            files = [str(self.folder / name) for name in ("vocab.json", "merges.txt")]
            tokenizer = Tokenizer(models.BPE.from_file(*files))
        except Exception:  # tokenizers raises bare Exception
            return None
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer


def read_tokenizer(model: ModelSource, folder: Path | None) -> TokenizerFacts | None:
    """Return the facts of a model's tokenizer, or None for a hub id that is not in the local cache.

    Raise ConfigurationError for a tokenizer that is missing or damaged. `folder` holds the pretrained model's files.
    """
    if model.type == "pretrained":
        return folder_tokenizer("model.source", folder) if folder else None
    reference = str(model.tokenizer)
    if ":" in reference:
        return _built("model.tokenizer", reference)
    path = Path(reference)
    if not path.is_dir():
        if path.is_absolute():
            fix = 'give a folder with tokenizer files, or "module:function"'
            raise ConfigurationError("model.tokenizer", f"there is no folder {path}", fix)
        return None
    return folder_tokenizer("model.tokenizer", path)


def _built(key: str, reference: str) -> TokenizerFacts:
    from tokenizers import Tokenizer

    pair = call(key, reference, {})
    types = [type(part) for part in pair] if isinstance(pair, tuple) else []
    if len(types) != 2 or not issubclass(types[0], Tokenizer) or not issubclass(types[1], dict):
        fix = 'return (tokenizers.Tokenizer, {"eos_token": "...", ...})'
        raise ConfigurationError(key, f"`{reference}` returns a {type(pair).__name__} of another form", fix)
    tokenizer, special = pair
    for name, token in special.items():
        if name.endswith("_token") and token is not None and tokenizer.token_to_id(str(token)) is None:
            problem = f"`{reference}` names {name} `{token}`, which is not in its vocabulary"
            raise ConfigurationError(key, problem, "add it to the vocabulary")
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    bos, eos, chat = special.get("bos_token"), special.get("eos_token"), bool(special.get("chat_template"))
    return TokenizerFacts(vocabulary, bos, eos, True, chat, built=tokenizer)


def folder_tokenizer(key: str, folder: Path) -> TokenizerFacts:
    """Return the facts of the tokenizer in a folder. Raise ConfigurationError if it has none or a file is damaged."""
    if not has_vocabulary(folder):
        fix = "save one there with `tokenizer.save_pretrained`"
        raise ConfigurationError(key, f"{folder} has no tokenizer (tokenizer.json, tokenizer.model, vocab.json)", fix)
    special = read_json(key, folder / "special_tokens_map.json")
    settings = {**special, **read_json(key, folder / "tokenizer_config.json")}
    chat = bool(settings.get("chat_template")) or any(folder.glob("chat_template.*"))
    bos, eos = _token(settings.get("bos_token")), _token(settings.get("eos_token"))
    generic = settings.get("tokenizer_class") in (None, *GENERIC)
    certain = generic or {"bos_token", "eos_token"} <= set(settings)
    try:
        vocabulary = _vocabulary(key, folder, settings)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"the tokenizer files in {folder} are damaged ({type(error).__name__}: {one_line(error)})"
        raise ConfigurationError(key, problem, "copy them again") from error
    for name, token in (("bos_token", bos), ("eos_token", eos)):
        if vocabulary is not None and isinstance(token, str) and token not in vocabulary:
            problem = f"{folder / 'tokenizer_config.json'} names {name} `{token}`, which is not in its vocabulary"
            raise ConfigurationError(key, problem, "correct it, or copy the file again")
    return TokenizerFacts(vocabulary, bos, eos, certain, chat, folder)


def _token(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _vocabulary(key: str, folder: Path, settings: dict[str, Any]) -> dict[str, int] | None:
    tokenizer = read_json(key, folder / "tokenizer.json")
    tokens = tokenizer.get("model", {}).get("vocab")
    if isinstance(tokens, dict):
        ids = dict(tokens)
    elif isinstance(tokens, list):
        ids = {str(entry[0]): number for number, entry in enumerate(tokens)}
    elif (folder / "vocab.json").is_file():
        ids = read_json(key, folder / "vocab.json")
    else:
        return None
    ids |= {str(token["content"]): int(token["id"]) for token in tokenizer.get("added_tokens", [])}
    ids |= read_json(key, folder / "added_tokens.json")
    ids |= {str(_token(token)): int(number) for number, token in settings.get("added_tokens_decoder", {}).items()}
    if wrong := next((token for token, number in ids.items() if type(number) is not int), None):
        raise ValueError(f"the id of `{wrong}` is not a number")
    return ids


def read_json(key: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} if there is no such file. Raise ConfigurationError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        value = load_json(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(key, f"{path} is damaged ({one_line(error)})", "copy the file again") from error
    if not isinstance(value, dict):
        raise ConfigurationError(key, f"{path} does not hold a JSON object", "copy the file again")
    return value
