"""Strategies: how one optimizer step is spread over ranks. The package itself imports neither torch nor deepspeed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from continual.config.schema import Train
    from continual.training.module import LossModule
    from continual.training.strategies.base import Strategy

__all__ = ["build_strategy", "equal_passes", "spreads_weights"]


def spreads_weights(train: "Train") -> bool:
    """Return whether rank 0 loads a model and the strategy spreads it; else every rank loads all of it."""
    return train.strategy == "fsdp" or (train.strategy == "deepspeed" and train.zero_stage == 3)


def equal_passes(train: "Train") -> bool:
    """Return whether all ranks must make as many forward passes: in each they gather weights, or sum gradients."""
    return train.strategy != "ddp"


def build_strategy(
    train: "Train",
    module: "LossModule",
    device: "torch.device",
    world_size: int,
    micro_batches: int,
) -> "Strategy":
    """Return the strategy that `train.strategy` names, around `module` on `device`; called by all ranks.

    `micro_batches`: backward passes per optimizer step of this rank.
    """
    if train.strategy == "ddp":
        from continual.training.strategies.ddp import Ddp

        return Ddp(train, module, device, world_size)
    if train.strategy == "fsdp":
        from continual.training.strategies.fsdp import Fsdp

        return Fsdp(train, module, device)
    from continual.training.strategies.deepspeed import DeepSpeed

    return DeepSpeed(train, module, device, micro_batches)
