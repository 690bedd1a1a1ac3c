"""Whether a model draws in training, as dropout does: losses then depend on how many rows go through it at a time."""

from typing import Any

DRAWN = ("drop", "jitter", "noise", "stochastic")
"""Parts of the names of options that are above 0 where training draws: `attention_dropout`, `router_jitter_noise`."""


def has_dropout(folder: str, options: Any = ()) -> bool:
    """Return whether a model folder's configuration, or options of what adapts the model, ask for dropout or noise.

    Defaults of the configuration's class count: GPT-2 has dropout unless its config.json says otherwise.
    """
    from continual.models.architecture import read_config  # imports transformers, which a plan can do without

    return draws(read_config(folder).to_dict()) or draws(options)


def draws(value: Any) -> bool:
    """Return whether a key with a word of `DRAWN` in its name (`resid_pdrop`, `layerdrop`) is above 0."""
    if isinstance(value, list | tuple):
        return any(map(draws, value))
    if not isinstance(value, dict):
        return False
    return any(_above(item) if _draws(str(key)) else draws(item) for key, item in value.items())


def _draws(key: str) -> bool:
    return any(word in key.lower() for word in DRAWN)


def _above(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_above, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
