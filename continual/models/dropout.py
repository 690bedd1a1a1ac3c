"""Whether training draws dropout: then losses depend on how many rows go through the model at a time."""

from typing import Any

from continual.models.architecture import read_config


def has_dropout(folder: str, options: Any = ()) -> bool:
    """Return whether a model folder's configuration, or options of what adapts the model, ask for dropout.

    Defaults of the configuration's class count: GPT-2 has dropout unless its config.json says otherwise.
    """
    return _asks(read_config(folder).to_dict()) or _asks(options)


def _asks(value: Any) -> bool:
    """Return whether a key with `drop` in its name (`attention_dropout`, `resid_pdrop`, `layerdrop`) is above 0."""
    if isinstance(value, list | tuple):
        return any(map(_asks, value))
    if not isinstance(value, dict):
        return False
    return any(_above(item) if "drop" in str(key).lower() else _asks(item) for key, item in value.items())


def _above(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_above, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
