"""The sizes of a model, from its config.json and the headers of its weights. Imports no torch."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

from continual.models.dropout import draws
from continual.models.files import loaded_files
from continual.preflight.memory import Sizes
from continual.preflight.tokenizer_facts import read_json

LAYER = re.compile(r"^(.*?\.)(\d+)\.")
"""Where a tensor's name tells the layer that it belongs to: `model.layers.12.mlp.up_proj.weight`."""

Shapes = dict[str, tuple[int, ...]]


def read_shapes(folder: Path) -> Shapes:
    """Return the shapes of all tensors by name, {} unless they are in safetensors, whose headers tell them."""
    shapes: Shapes = {}
    for path in loaded_files(folder):
        if path.suffix != ".safetensors":
            return {}
        with safe_open(path, "np") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def read_sizes(folder: Path, shapes: Shapes) -> Sizes | None:
    """Return the sizes of the decoder in `folder`, None if its files do not tell them."""
    config = read_json("model.source", folder / "config.json")
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    hidden, inner = _number(config, "hidden_size", "n_embd"), _number(config, "intermediate_size", "n_inner")
    vocabulary = _number(config, "vocab_size")
    layers = _layers(shapes)
    if not layers or not hidden or not vocabulary:
        return None
    total = sum(map(_count, shapes.values()))
    experts = (
        (_number(config, "num_experts_per_tok") or 1) if _number(config, "num_experts", "num_local_experts") else 1
    )
    width = experts * (_number(config, "moe_intermediate_size") or inner or 4 * hidden)
    return Sizes(total, max(layers.values()), total - sum(layers.values()), len(layers), hidden, width, vocabulary)


def may_draw(folder: Path, options: Any) -> bool:
    """Return whether a model, or options of what adapts it, may ask for dropout: its class may where no key says."""
    config = read_json("model.source", folder / "config.json")
    return draws(config) or draws(options) or not any("drop" in key for key in config)


def _layers(shapes: Shapes) -> Counter[str]:
    """Return the parameters of each layer, of the stack of layers that has most: a vision tower has one, too."""
    stacks: dict[str, Counter[str]] = {}
    for name, shape in shapes.items():
        if match := LAYER.match(name):
            stacks.setdefault(match[1], Counter())[match[2]] += _count(shape)
    return max(stacks.values(), key=lambda stack: sum(stack.values()), default=Counter())


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _number(config: dict[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
