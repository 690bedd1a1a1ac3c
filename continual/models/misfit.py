"""Say in one sentence why the tensors of a model's files are not those of its architecture. Imports no torch."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from continual.errors import ConfigurationError

SHOWN = 3
"""Tensors that a sentence names, of one kind."""
CONSTANTS = (".masked_bias",)
"""Endings of the names of constants, not weights, that earlier versions of transformers stored with a model."""
INSIDE = ("state_dict", "model_state_dict", "model", "module")
"""What a training's checkpoint calls the weights in it."""
WRAPPERS = {
    "_orig_mod": "saved from a model that `torch.compile` had wrapped",
    "base_model.model": "saved from a PEFT model; merge its adapter first",
    "module": "saved from a model that DistributedDataParallel had wrapped",
    "_fsdp_wrapped_module": "saved from a model that FSDP had wrapped",
    "_checkpoint_wrapped_module": "saved from a model whose layers were wrapped for activation checkpointing",
}
"""What wrappers put before or into the names of the tensors, and where it comes from."""


@dataclass(frozen=True)
class Misfit:
    """The tensors that do not fit.

    Attributes:
        missing: Names that the architecture has and the files do not.
        unexpected: Names that the files have and the architecture does not.
        mismatched: Shapes in the files and in the architecture, by name.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Mapping[str, tuple[list[int], list[int]]] = field(default_factory=dict)


def misfit_of(info: Mapping[str, Any]) -> Misfit | None:
    """Return what transformers' loading info calls missing, unexpected or mismatched; None if all tensors fit."""
    shapes = {name: (list(stored), list(wanted)) for name, stored, wanted in sorted(info["mismatched_keys"])}
    missing = set(info["missing_keys"]) - shapes.keys()
    unexpected = {name for name in info["unexpected_keys"] if not name.endswith(CONSTANTS)}
    misfit = Misfit(_ordered(missing), _ordered(unexpected), shapes)
    return misfit if misfit.missing or misfit.unexpected or misfit.mismatched else None


def misfit_error(folder: str, architecture: str, misfit: Misfit, config: Any, head: str | None) -> ConfigurationError:
    """Return the error for weights that do not fit: the first tensors, how many there are, and what to do.

    Args:
        folder: The model's folder.
        architecture: The name of its class.
        misfit: What does not fit.
        config: The configuration of the text model.
        head: The name of the output embedding's tensor, None if the class has none.
    """
    fix, renamed = _fix(misfit, config, head)
    parts = []
    if misfit.missing and not renamed:
        parts.append(f"lack {_listed(misfit.missing)}")
    if misfit.unexpected:
        parts.append(f"hold {_listed(misfit.unexpected)}, which it does not have")
    if misfit.mismatched:
        shapes = [f"`{name}` as {stored} instead of {wanted}" for name, (stored, wanted) in misfit.mismatched.items()]
        parts.append(f"hold {_listed(shapes, quote='')}")
    problem = f"the weights in {folder} are not those of its {architecture}: they {' and '.join(parts)}"
    return ConfigurationError("", problem, fix)


def _fix(misfit: Misfit, config: Any, head: str | None) -> tuple[str, bool]:
    """Return what to do about the usual causes, or in general, and whether the tensors have other names only."""
    if renaming := _renaming(misfit):
        return f"{renaming}, or save it again with `model.save_pretrained`", True
    if cause := _layers_asked(misfit, config) or _untied(misfit, head) or _vocabulary(misfit, config):
        return cause, False
    return "copy the config.json and all files of weights that belong together", False


def _renaming(misfit: Misfit) -> str:
    """Return which part of the names is too much, if that is what is wrong."""
    for wrapper, cause in WRAPPERS.items():
        part = re.compile(rf"(^|\.){re.escape(wrapper)}\.")
        if misfit.unexpected and all(part.search(name) for name in misfit.unexpected):
            return f"take `{wrapper}.` out of the names ({cause})"
    if misfit.unexpected and not any("." in name for name in misfit.unexpected):
        inside = next((f"`{name}`" for name in INSIDE if name in misfit.unexpected), "the weights")
        return f"the files hold a training's whole checkpoint: take {inside} out of it"
    prefix = _common_prefix(misfit)
    return f"take `{prefix}` out of the names" if prefix else ""


def _layers_asked(misfit: Misfit, config: Any) -> str:
    """Return the number of layers to write, if whole layers are missing or too many."""
    layers = getattr(config, "num_hidden_layers", None)
    missing, unexpected = _layers(misfit.missing), _layers(misfit.unexpected)
    if not isinstance(layers, int) or misfit.mismatched or (misfit.missing and misfit.unexpected):
        return ""
    held = min(missing, default=0) if missing else max(unexpected, default=-1) + 1
    if held < 1 or {*missing, *unexpected} != set(range(min(held, layers), max(held, layers))):
        return ""
    key = getattr(config, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")
    return f"config.json asks for {layers} layers: write `{key}: {held}` there"


def _untied(misfit: Misfit, head: str | None) -> str:
    """Return what to do if nothing but the head is missing."""
    if misfit.missing != (head,) or misfit.unexpected or misfit.mismatched:
        return ""
    fix = "config.json does not tie the head to the embedding: copy the head's tensor there too, "
    return fix + "or write `tie_word_embeddings: true` if the model was trained with a tied one"


def _vocabulary(misfit: Misfit, config: Any) -> str:
    """Return the size to write if the vocabulary alone is another."""
    shapes = list(misfit.mismatched.values())
    size = getattr(config, "vocab_size", None)
    if not shapes or misfit.missing or misfit.unexpected:
        return ""
    if any(stored[1:] != wanted[1:] or wanted[0] != size or stored[0] != shapes[0][0][0] for stored, wanted in shapes):
        return ""
    return f"write `vocab_size: {shapes[0][0][0]}` in config.json, or copy the weights that belong to it"


def _common_prefix(misfit: Misfit) -> str:
    """Return what stands before every unexpected name that would otherwise be one of the missing ones, or ""."""
    if not misfit.unexpected or not misfit.missing:
        return ""
    first = misfit.unexpected[0]
    for name in misfit.missing:
        prefix = first.removesuffix(name)
        if prefix != first and all(other.removeprefix(prefix) in misfit.missing for other in misfit.unexpected):
            return prefix
    return ""


def _layers(names: Iterable[str]) -> set[int]:
    """Return the numbers of the layers if all names are of layers, else an empty set."""
    numbers = [re.search(r"\.(\d+)\.", name) for name in names]
    return {int(number[1]) for number in numbers if number} if all(numbers) else set()


def _listed(names: Iterable[str], quote: str = "`") -> str:
    """Return the first names, and how many there are in all if there are more."""
    every = list(names)
    shown = ", ".join(f"{quote}{name}{quote}" for name in every[:SHOWN])
    return shown if len(every) <= SHOWN else f"{shown}, ... ({len(every)} tensors)"


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with the numbers in them in their order."""
    return tuple(sorted(names, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)]))
