"""Layers that torch.compile has made kernels of: one graph for all layers that are alike, as in torchtitan."""

from collections.abc import Iterable
from typing import Any

import torch

from continual.training.spread import layers_of

LIMIT = 64
"""Most graphs of the layers' code: one for every kind of layer, in each mode, for one row and for more."""


def compile_layers(models: Iterable[Any]) -> None:
    """Let torch.compile make the layers of the models; called once a stage, after a strategy has spread the weights.

    Only `forward` is compiled: what a strategy hooks to a layer (FSDP gathers its weights there) stays outside, and
    activation checkpointing, which transformers wraps around `forward`, is part of the graph. All sizes are dynamic, so
    that other numbers of rows need no other graph (a single row does), and which graph a row goes through does not
    depend on the rows before: a resumed stage repeats the bits of an undisturbed one.
    """
    torch.compiler.reset()  # graphs that an earlier stage left in this process would be used again
    # DDP would cut graphs at the borders of its buckets, which has no use within a layer, and cannot with checkpoints.
    torch._dynamo.config.optimize_ddp = False
    torch._dynamo.config.recompile_limit = LIMIT
    for model in models:
        for layer in layers_of(model):
            layer.forward = torch.compile(layer.forward, dynamic=True)
