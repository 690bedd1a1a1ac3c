"""DeepSpeed's settings, with the user's JSON in them. The checks before a start use it: it imports no torch."""

import json
import math
from pathlib import Path
from typing import Any

from continual.config.schema import Train
from continual.errors import ConfigurationError, one_line
from continual.errors.json_text import load_json

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
UNKEPT = (
    "zenflow",  # an optimizer of its own beside ours
    "zeropp_loco_param",  # errors of quantized gradients, which the next step adds
    "zero_quantized_nontrainable_weights",  # frozen weights are no floats then
    "round_robin_gradients",  # deepspeed 0.19 takes parts of other parameters for a parameter's own
)
"""Keys of `zero_optimization` that a checkpoint would not be complete or right with."""
BLOCKS = frozenset(
    {"optimizer", "scheduler", "fp16", "bf16", "amp", "zero_optimization", "offload_param", "offload_optimizer", "aio",
     "flops_profiler", "activation_checkpointing", "comms_logger", "tensorboard", "wandb", "csv_monitor", "elasticity",
     "autotuning", "data_efficiency", "curriculum_learning", "sparse_attention", "compression_training", "checkpoint",
     "data_types", "pipeline"}
)  # fmt: skip
"""Keys whose values are mappings."""
MOST_BYTES = 1 << 20
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
            user = load_json(user, MOST_BYTES)
        except (OSError, ValueError) as error:
            problem = f"`{value}` cannot be read ({one_line(error)})"
            raise ConfigurationError("train.deepspeed", problem, NAME_JSON) from error
    if not isinstance(user, dict):
        raise ConfigurationError("train.deepspeed", f"`{value}` does not hold a JSON object", "write {...}")
    _check_values(user, "")
    if keys := conflicts(user):
        problem = f"other keys of `train` set {', '.join(keys)}"
        raise ConfigurationError("train.deepspeed", problem, 'leave them out, or write "auto"')
    user = _without_auto(user)
    if keys := unkept(user):
        problem = f"checkpoints do not hold what {', '.join(keys)} keeps"
        raise ConfigurationError("train.deepspeed", problem, "leave it out")
    return user


def unkept(user: dict[str, Any]) -> list[str]:
    """Return the dotted keys of the user's JSON whose state no checkpoint would hold."""
    zero = user.get("zero_optimization", {})
    keys = [key for key in UNKEPT if zero.get(key)]
    for block in ("offload_optimizer", "offload_param"):
        options = zero.get(block, {})
        keys += [f"{block}.device"] if options.get("device") == "nvme" else []
        keys += [f"{block}.ratio"] if options.get("ratio", 1) != 1 else []
    return [f"zero_optimization.{key}" for key in keys]


def _check_values(values: dict[str, Any], place: str) -> None:
    """Refuse what no key of DeepSpeed's takes: a block or a list that is null, a number that is not finite."""
    for key, value in values.items():
        where = f"{place}.{key}" if place else key
        if isinstance(value, dict):
            _check_values(value, where)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError("train.deepspeed", f"`{where}: {value}` is not finite", "write a finite number")
        elif key in BLOCKS and not isinstance(value, dict) and value != "auto":
            problem = f"`{where}: {json.dumps(value)}` is not a block of keys"
            raise ConfigurationError("train.deepspeed", problem, "write {...}, or leave it out")


def settings(train: Train, micro_batches: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration for `train`, with the user's JSON merged in. Raises ConfigurationError."""
    ours = {
        "train_micro_batch_size_per_gpu": 1,  # only its own counters read it
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": train.max_grad_norm or 0.0,
        "zero_optimization": {"stage": train.zero_stage},
        # Autocast is LossModule's; float32 weights need no half-precision engine.
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        # Offloading the optimizer keeps our AdamW instead of asking for DeepSpeed's compiled one.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    return merged(ours, read_json(train.deepspeed))


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
