"""What runs are called beside each other: by the one key in which they differ, else by their names."""

import json
from collections.abc import Sequence
from typing import Any

from continual.config.compare import compared
from continual.show.report.gather import RunData


def names(runs: Sequence[RunData]) -> list[str]:
    """A name per run, all different: `key: value` where the configurations differ in one key, else the run's name.

    Runs of one name, from different storages, are told apart by their folders. What does not decide results
    (`continual.config.compare`) is no difference.
    """
    if len(runs) > 1:
        found = differing([run.config for run in runs])
        if len(found) == 1:
            [(key, values)] = found.items()
            told = [f"{key}: {shown(value)}" for value in values]
            if len(set(told)) == len(runs):
                return told
    plain = [run.name for run in runs]
    return plain if len(set(plain)) == len(runs) else [str(run.folder) for run in runs]


def differing(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Dotted keys in which configurations differ, each with the value of every one of them (None: not there).

    Lists whose entries are of different types or numbers, such as lists of mitigations, differ as a whole.
    """
    return _walk([compared(config) for config in configs], "")


def _walk(values: list[Any], at: str) -> dict[str, list[Any]]:
    if all(value == values[0] for value in values):
        return {}
    if all(isinstance(value, list) for value in values):
        kinds = [[item.get("type") if isinstance(item, dict) else type(item).__name__ for item in v] for v in values]
        if all(kind == kinds[0] for kind in kinds):
            values = [dict(enumerate(value)) for value in values]
    if not all(isinstance(value, dict) for value in values):
        return {at: values}
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for value in values for key in value):
        found |= _walk([value.get(key) for value in values], f"{at}.{key}" if at else str(key))
    return found


def shown(value: Any) -> str:
    """A value for reading: a list of mitigations by its labels, anything else as YAML would have it in one line."""
    if isinstance(value, list) and all(isinstance(item, dict) and "type" in item for item in value):
        return " + ".join(item.get("name") or item["type"] for item in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)
