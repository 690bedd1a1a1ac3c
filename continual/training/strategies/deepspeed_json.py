"""The user's DeepSpeed JSON: read, checked, merged. Imports neither torch nor deepspeed: config checks use it."""

import json
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError

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
"""Keys that other keys of `train` decide."""


def conflicts(user: dict[str, Any]) -> list[str]:
    """Dotted keys of the user's JSON that belong to us, empty if there are none.

    `"auto"`, as Hugging Face's JSON files have it, leaves a key to us and is no conflict.
    """
    given = _without_auto(user)
    found = []
    for key in OURS:
        block, _, leaf = key.rpartition(".")
        values = given.get(block, {}) if block else given
        if isinstance(values, dict) and leaf in values:
            found.append(key)
    return found


def read_json(value: dict[str, Any] | str | None) -> dict[str, Any]:
    """`train.deepspeed` as a dict without its "auto" values. Raises ConfigurationError for a bad file or bad keys."""
    user: Any = value or {}
    if isinstance(user, str):
        try:
            user = json.loads(Path(user).read_text())
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                "train.deepspeed", f"`{value}` cannot be read ({error})", "name a JSON file, or write the keys here"
            ) from error
    if not isinstance(user, dict):
        raise ConfigurationError("train.deepspeed", f"`{value}` holds no JSON object", "write {...}")
    bad = conflicts(user)
    if bad:
        raise ConfigurationError(
            "train.deepspeed", f"{', '.join(bad)}: decided by other keys of `train`", 'leave out, or write "auto"'
        )
    return _without_auto(user)


def merged(ours: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    """Both, nested blocks key by key; the user's value where both have one."""
    result = dict(ours)
    for key, value in user.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def _without_auto(values: dict[str, Any]) -> dict[str, Any]:
    """The dict without "auto" values, and without the blocks that held nothing else."""
    kept = {key: _without_auto(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value != "auto" and not (value == {} and values[key] != {})}
