"""Activation checkpointing: a layer keeps its input alone, and runs again in the backward pass."""

from typing import Any

from continual.errors import ConfigurationError

KEY = "train.activation_checkpointing"


def recompute_layers(model: Any, reentrant: bool) -> None:
    """Let the layers of a model keep only their inputs for the backward pass. Raises ConfigurationError as below.

    `reentrant`: torch's older way, which ZeRO-3 needs. The other one compares the weights' shapes of both passes, and
    ZeRO-3 has put them away by then.
    """
    check_recompute(type(model))
    model.activation_checkpointing_enable({"use_reentrant": reentrant})


def check_recompute(kind: type[Any]) -> None:
    """Raise ConfigurationError unless transformers can run the layers of a model class again."""
    if not kind.supports_gradient_checkpointing:
        raise ConfigurationError(KEY, f"the layers of {kind.__name__} cannot be run again", "write false")
