"""Which parameters are trained: those that packed rows of text reach. Imports torch when called."""

from typing import Any


def freeze_unreached(model: Any) -> dict[str, int]:
    """Stop the training of all parameters that text cannot reach, such as a vision tower's, and return their sizes.

    Packed rows go through the body, `model.get_decoder()`, and the head. The sizes are by name. A parameter outside
    that gets no gradient: DDP would wait for it, and weight decay would change it. Nothing else is changed: what is
    frozen already stays so.
    """
    head = model.get_output_embeddings()
    reached = {id(parameter) for module in (model.get_decoder(), head) for parameter in module.parameters()}
    frozen = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in reached:
            parameter.requires_grad_(False)
            frozen[name] = parameter.numel()
    return frozen


def note_about(frozen: dict[str, int]) -> str:
    """Return a sentence about the parameters that are not trained."""
    parts = ", ".join(f"`{part}`" for part in dict.fromkeys(_part(name) for name in frozen))
    count = f"{sum(frozen.values())} parameters in {len(frozen)} tensors"
    return f"{count} of the model are not trained: text cannot reach {parts}"


def _part(name: str) -> str:
    """Return the name of the module below the outermost `model`, e.g. `vision_tower`."""
    first, *rest = name.split(".")
    return rest[0] if first == "model" and rest else first
