"""What runs are called in a comparison: after the only key in which they differ, else by their names."""

import json
from collections.abc import Sequence
from typing import Any

from continual.config.compare import compared
from continual.show.report.gather import RunData


def names(runs: Sequence[RunData]) -> list[str]:
    """Return a name per run, all different: `key: value` if the configurations differ in one key, else the run's name.

    Runs of the same name, from different storages, are called by their folders. Keys that do not affect results
    (`continual.config.compare`) do not count.
    """
    if len(runs) > 1:
        differences = differing([run.config for run in runs])
        if len(differences) == 1:
            [(key, values)] = differences.items()
            labels = [f"{key}: {shown(value)}" for value in values]
            if len(set(labels)) == len(runs):
                return labels
    plain = [run.name for run in runs]
    return plain if len(set(plain)) == len(runs) else [str(run.folder) for run in runs]


def differing(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the dotted keys in which configurations differ, each with the value in every configuration (None: absent).

    Lists whose entries are of different types or numbers, such as lists of mitigations, differ as a whole.
    """
    return _walk([compared(config) for config in configs], "")


def _walk(values: list[Any], key: str) -> dict[str, list[Any]]:
    if all(value == values[0] for value in values):
        return {}
    if all(isinstance(value, list) for value in values):
        kinds = [[item.get("type") if isinstance(item, dict) else type(item).__name__ for item in v] for v in values]
        if all(kind == kinds[0] for kind in kinds):
            values = [dict(enumerate(value)) for value in values]
    if not all(isinstance(value, dict) for value in values):
        return {key: values}
    differences: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for value in values for name in value):
        differences |= _walk([value.get(name) for value in values], f"{key}.{name}" if key else str(name))
    return differences


def shown(value: Any) -> str:
    """Return a value for reading: a list of mitigations by its labels, anything else as YAML in one line."""
    if isinstance(value, list) and all(isinstance(item, dict) and "type" in item for item in value):
        return " + ".join(item.get("name") or item["type"] for item in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)
