"""Former names of keys: they keep working, and a note says what the key is called now."""

from typing import Any

from pydantic import BaseModel

from continual.config.overrides import KeyPath, dotted
from continual.config.problems import item_of, model_of
from continual.contract.base import Strict
from continual.errors import ConfigurationError


def rename_keys(raw: Any, model: type[BaseModel] | None, last: KeyPath = (), place: KeyPath = ()) -> list[str]:
    """Replace former names of keys in place, and return a note for each.

    Args:
        raw: A value as written.
        model: The model that describes it, None if it has none.
        last: The place that was set last; a former name there replaces a value under the new name.
        place: Where `raw` is in the whole configuration.

    Raises:
        ConfigurationError: Both names of a key are given.
    """
    if not isinstance(raw, dict) or model is None:
        return []
    notes = []
    for old, new in model.renamed.items() if issubclass(model, Strict) else ():
        if old not in raw:
            continue
        key = dotted((*place, old))
        if new in raw and last != (*place, old):
            raise ConfigurationError(key, f"this key is now called `{new}`, which is given as well", "remove it")
        raw[new] = raw.pop(old)
        notes.append(f"`{key}` is now called `{new}`; the former name still works")
    for name, field in model.model_fields.items():
        value = raw.get(name)
        if isinstance(value, list):
            for number, item in enumerate(value):
                notes += rename_keys(item, model_of(item_of(field.annotation), item), last, (*place, name, number))
        else:
            notes += rename_keys(value, model_of(field.annotation, value), last, (*place, name))
    return notes
