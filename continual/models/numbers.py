"""Values of a model's settings that no model has: refused before anything is laid out by them. Imports no torch."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError
from continual.models.files import weight_files

CORRECT = "correct it, or copy the file again"
LAYERS = re.compile(r"(?:num|n)_(?:\w+_)?layers?|n_layers?|(?:encoder|decoder)_layers|depth")
MOST_LAYERS = 300
"""More would take seconds to lay out, before anything could be said of the model."""
MOST_OF = {"num_labels": 100_000, "num_experts": 10_000, "num_local_experts": 10_000, "n_routed_experts": 10_000}
WIDTHS = frozenset(
    {"vocab_size", "hidden_size", "intermediate_size", "n_embd", "n_inner", "d_model", "d_ff", "ffn_dim", "head_dim",
     "num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "n_positions", "moe_intermediate_size",
     "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank", "word_embed_proj_dim"}
)  # fmt: skip
"""Sizes of a tensor, each of whose entries takes a byte or more in the files."""
POSITIVE = frozenset({"vocab_size", "hidden_size", "n_embd", "d_model", "num_attention_heads", "n_head", "n_heads"})
SMALLEST_BOUND = 1 << 20
DROPOUT = re.compile(r"(?:\w+_)?(?:dropout|pdrop|layerdrop|dropout_(?:prob|p|rate))")
IDS = ("bos_token_id", "eos_token_id")
NO_ID = -1
"""Some older files write this id for a token that the model does not have."""


def check_config(folder: str | Path, config: dict[str, Any]) -> None:
    """Raise ConfigurationError for a value in config.json, or in a configuration within, that no model has."""
    file = Path(folder, "config.json")
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise ConfigurationError("", f"{file}: `architectures: {_shown(named)}` is not a list of names", CORRECT)
    if not isinstance(config.get("auto_map") or {}, dict):
        raise ConfigurationError("", f"{file}: `auto_map: {_shown(config['auto_map'])}` is not a mapping", CORRECT)
    largest = max(SMALLEST_BOUND, sum(path.stat().st_size for path in weight_files(folder)))
    for place, key, value in _values(config):
        if (problem := _problem(key, value, largest)) is not None:
            raise ConfigurationError("", f"{file}: `{place}: {_shown(value)}` {problem}", CORRECT)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            _check_ids(file, part, config.get("model_type"))


def check_generation(file: Path, settings: dict[str, Any]) -> None:
    """Raise ConfigurationError for a number in generation_config.json that is not finite or longer than 64 bits."""
    for place, key, value in _values(settings):
        if (problem := _problem(key, value, 1 << 62)) is not None:
            raise ConfigurationError("", f"{file}: `{place}: {_shown(value)}` {problem}", CORRECT)


def _values(value: Any, place: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every value that is not a mapping, with its place and key; the items of a list have the list's key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _values(item, f"{place}.{name}" if place else str(name), str(name))
    elif isinstance(value, list):
        yield place, key, value
        for item in value:
            yield from _values(item, place, "")
    else:
        yield place, key, value


def _problem(key: str, value: Any, largest: int) -> str | None:
    """Return what is wrong with a value, None if nothing is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "has more than 64 bits"
    # The items of a list have no key: some classes have an infinite limit there.
    if key and isinstance(value, float) and not math.isfinite(value):
        return "is not finite"
    if DROPOUT.fullmatch(key):
        wrong = isinstance(value, str) or (number and not 0 <= value <= 1)
        return "is not a probability from 0 to 1" if wrong else None
    layers = bool(LAYERS.fullmatch(key))
    if not layers and key not in WIDTHS and key not in MOST_OF:
        return None
    if (value is not None and not isinstance(value, int | list | dict)) or isinstance(value, bool):
        return "is not a whole number"
    if not isinstance(value, int):
        return None
    if value < (1 if key in POSITIVE else 0):
        return "is too small"
    most = MOST_LAYERS if layers else MOST_OF.get(key, largest)
    if value > most:
        return f"is more than {most:,}" if layers or key in MOST_OF else "is more than the weights hold"
    return None


def _check_ids(file: Path, config: dict[str, Any], family: Any) -> None:
    """Refuse ids outside the vocabulary. Classes save their default for another vocabulary, which is left alone."""
    size = config.get("vocab_size")
    for key in IDS:
        listed = config.get(key)
        for number in listed if isinstance(listed, list) else [listed]:
            if number is None or (isinstance(number, int) and number == NO_ID):
                continue
            whole = isinstance(number, int) and not isinstance(number, bool)
            if whole and (not isinstance(size, int) or 0 <= number < size or number == _default(family, key)):
                continue
            among = f" from 0 to {size - 1}" if isinstance(size, int) else ""
            problem = f"{file}: `{key}: {_shown(listed)}` is not an id of the vocabulary"
            raise ConfigurationError("", problem, f"write an id{among}")


def _default(family: Any, key: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        return getattr(CONFIG_MAPPING[family](), key, None)
    except Exception:  # a class without defaults
        return None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
