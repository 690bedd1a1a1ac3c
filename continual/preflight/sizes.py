"""The sizes of a model, from its config.json and the headers of its weights. Imports no torch."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

from continual.contract.mitigation import Mitigation
from continual.models.dropout import draws
from continual.models.files import loaded_files
from continual.preflight.memory import Sizes
from continual.preflight.tokenizer_facts import read_json

LAYER = re.compile(r"^(.*?\.)(\d+)\.")
"""Where a tensor's name tells the layer that it belongs to: `model.layers.12.mlp.up_proj.weight`."""

EXPERT = ".experts."
"""What the names of the weights have of which a router chooses some for each token."""

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
    prefix, layers = _layers(shapes)
    if not layers or not hidden or not vocabulary:
        return None
    total = sum(map(_count, shapes.values()))
    of = _number(config, "num_experts", "num_local_experts", "n_routed_experts")
    experts = (_number(config, "num_experts_per_tok") or 1) if of else 1
    width = experts * (_number(config, "moe_intermediate_size") or inner or 4 * hidden)
    heads = _number(config, "num_attention_heads", "n_head")
    queries = heads * (_number(config, "head_dim") or hidden // heads) if heads else hidden
    matrices = {name: _count(shape) for name, shape in shapes.items() if name.startswith(prefix) and len(shape) > 1}
    products = sum(count * (experts / of if of and EXPERT in name else 1) for name, count in matrices.items())
    return Sizes(
        total, max(layers.values()), total - sum(layers.values()), len(layers), hidden, width, vocabulary, queries,
        round(products),
    )  # fmt: skip


def may_draw(folder: Path, options: Any) -> bool:
    """Return whether a model, or options of what adapts it, may ask for dropout: its class may where no key says."""
    config = read_json("model.source", folder / "config.json")
    return draws(config) or draws(options) or not any("drop" in key for key in config)


def trained_parameters(methods: list[Mitigation], shapes: Shapes) -> int | None:
    """Return how many parameters are trained in place of the model's, as the first of the methods says; None: those."""
    found = (method.trained_parameters(shapes) for method in methods)
    return next((count for count in found if count is not None), None)


def _layers(shapes: Shapes) -> tuple[str, Counter[str]]:
    """Return what the names of the largest stack of layers begin with (a vision tower has one, too), and the parameters
    of each of its layers.
    """
    stacks: dict[str, Counter[str]] = {}
    for name, shape in shapes.items():
        if match := LAYER.match(name):
            stacks.setdefault(match[1], Counter())[match[2]] += _count(shape)
    return max(stacks.items(), key=lambda stack: sum(stack[1].values()), default=("", Counter()))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _number(config: dict[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
