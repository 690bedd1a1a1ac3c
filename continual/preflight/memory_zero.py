"""What DeepSpeed takes of a GPU beside weights, gradients and optimizer: by its options, or by its own defaults."""

from dataclasses import dataclass, replace
from typing import Any

from continual.config.schema import Train
from continual.errors import ConfigurationError
from continual.training.strategies.deepspeed_json import settings

BUCKET = 500_000_000
"""Gradients that DeepSpeed sums over ranks at a time (deepspeed 0.19: `reduce_bucket_size`)."""
LIVE = 1_000_000_000
"""Weights that ZeRO-3 keeps gathered since they are used again soon (`stage3_max_live_parameters`)."""
AHEAD = 50_000_000
"""Weights that ZeRO-3 gathers before they are used (`stage3_prefetch_bucket_size`)."""


@dataclass(frozen=True)
class Zero:
    """What DeepSpeed changes; as they are by default, these values change nothing.

    `weights`, `optimizer`: 0 where they are offloaded to the CPU, and with the optimizer its gradients, else 1;
    `copies`: 1 if weights that are trained have a float32 copy there; `buckets`: bytes of the buckets for gradients;
    `spread`: whether weights are spread, and gathered as they are used, by ZeRO-3; `live`, `ahead`: how many of them it
    may keep gathered, and gather ahead of their use.
    """

    weights: int = 1
    optimizer: int = 1
    copies: int = 0
    buckets: float = 0.0
    spread: bool = False
    live: float = 0.0
    ahead: float = 0.0


def zero_of(train: Train) -> Zero:
    """Return what `train.deepspeed` asks for; the defaults where it cannot be read, which other checks tell."""
    if train.strategy != "deepspeed":
        return Zero()
    try:
        options: dict[str, Any] = settings(train, 1)["zero_optimization"]
    except ConfigurationError:
        options = {}
    gpu = train.gpus_per_worker > 0  # else what is offloaded stays in the same memory
    blocks = ("offload_param", "offload_optimizer")
    weights, optimizer = (int(not (gpu and _offloaded(options, block))) for block in blocks)
    count = 2 if options.get("overlap_comm") and train.zero_stage < 3 else 1
    contiguous = options.get("contiguous_gradients", True)
    buckets = 4.0 * count * _number(options, "reduce_bucket_size", BUCKET) if contiguous else 0.0
    found = Zero(weights, optimizer, optimizer, buckets)
    if train.zero_stage < 3:
        return found
    live = _number(options, "stage3_max_live_parameters", LIVE)
    return replace(found, spread=True, live=live, ahead=_number(options, "stage3_prefetch_bucket_size", AHEAD))


def _number(options: dict[str, Any], name: str, usual: float) -> float:
    """Return an option; if it is not a number, return `usual` and let DeepSpeed report the error."""
    value = options.get(name, usual)
    return float(value) if isinstance(value, int | float) else float(usual)


def _offloaded(options: dict[str, Any], name: str) -> bool:
    block = options.get(name) or {}
    return isinstance(block, dict) and block.get("device", "none") != "none"
