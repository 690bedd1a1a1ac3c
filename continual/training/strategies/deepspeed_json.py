"""The user's DeepSpeed JSON: read, checked, merged. Imports neither torch nor deepspeed, as the checks use it."""

import json
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, one_line

OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "optimizer",
    "scheduler",
    "gradient_clipping",
    "fp16",
    "bf16",
    "zero_optimization.stage",
)
"""Keys that we set from other keys of `train`."""
NAME_JSON = "name a JSON file, or write the keys here"


def conflicts(user: dict[str, Any]) -> list[str]:
    """Return the dotted keys of the user's JSON that we set ourselves.

    `"auto"`, as in Hugging Face's JSON files, leaves a key to us and is not a conflict.
    """
    given = _without_auto(user)
    keys = []
    for key in OURS:
        block, _, leaf = key.rpartition(".")
        values = given.get(block, {}) if block else given
        if isinstance(values, dict) and leaf in values:
            keys.append(key)
    return keys


def read_json(value: dict[str, Any] | str | None) -> dict[str, Any]:
    """Return `train.deepspeed` without its "auto" values. Raise ConfigurationError for a bad file or bad keys."""
    user: Any = value or {}
    if isinstance(user, str):
        if not Path(user).is_file():  # a pipe or a device would be waited for
            raise ConfigurationError("train.deepspeed", f"there is no file `{value}`", NAME_JSON)
        try:
            user = json.loads(Path(user).read_text())
        except (OSError, ValueError) as error:
            problem = f"`{value}` cannot be read ({one_line(error)})"
            raise ConfigurationError("train.deepspeed", problem, NAME_JSON) from error
    if not isinstance(user, dict):
        raise ConfigurationError("train.deepspeed", f"`{value}` does not hold a JSON object", "write {...}")
    if keys := conflicts(user):
        problem = f"other keys of `train` set {', '.join(keys)}"
        raise ConfigurationError("train.deepspeed", problem, 'leave them out, or write "auto"')
    return _without_auto(user)


def merged(ours: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    """Return both, merged key by key at any depth; the user's value wins."""
    result = dict(ours)
    for key, value in user.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def _without_auto(values: dict[str, Any]) -> dict[str, Any]:
    """Return the dict without "auto" values and without blocks that held nothing else."""
    kept = {key: _without_auto(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value != "auto" and not (value == {} and values[key] != {})}
