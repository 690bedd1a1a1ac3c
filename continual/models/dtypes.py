"""The dtypes that a model's tensors have in its files, from their headers."""

from collections import Counter
from typing import Any

from continual.errors import ConfigurationError
from continual.models.files import loaded_files


def stored_dtypes(folder: str) -> dict[str, Any]:
    """Return the dtype of every tensor in the files that transformers loads, by name."""
    from transformers.modeling_utils import load_state_dict

    files = [load_state_dict(str(path), map_location="meta") for path in loaded_files(folder)]
    return {name: tensor.dtype for tensors in files for name, tensor in tensors.items() if hasattr(tensor, "dtype")}


def refuse_quantized(folder: str, model: Any) -> None:
    """Raise ConfigurationError if a parameter of the model is stored in a dtype that is not trained, such as int8."""
    import torch

    trained = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    stored = stored_dtypes(folder)
    for name, _ in model.named_parameters():
        if name in stored and stored[name] not in trained:
            problem = f"the weights in {folder} are quantized (`{name}` is {str(stored[name]).removeprefix('torch.')})"
            raise ConfigurationError("", f"{problem} and cannot be trained", "take the unquantized ones")


def restore_dtypes(folder: str, model: Any) -> None:
    """Give the model's parameters the dtypes of the model in `folder`: those of their names, else the commonest one."""
    stored = {name: dtype for name, dtype in stored_dtypes(folder).items() if dtype.is_floating_point}
    [(commonest, _)] = Counter(stored.values()).most_common(1)
    # Tied parameters are one object, and stay one.
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(stored.get(name, commonest))
