"""A sequence from its YAML and the command line's overrides. Imports neither torch nor ray."""

import copy
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from continual.config.compare import compared, config_fingerprint, differences
from continual.config.overrides import KeyPath, Override, apply_override, dotted
from continual.config.paths import resolve_paths, resolve_storage
from continual.config.problems import explain, with_override
from continual.config.schema import Sequence
from continual.config.yaml_text import read_yaml
from continual.errors import ConfigurationError

__all__ = ["Loaded", "config_fingerprint", "differences", "load_sequence"]


@dataclass(frozen=True)
class Loaded:
    """A valid sequence and where it came from.

    `path` is the YAML's absolute path, `file` what messages call it. `resolved` is the whole configuration with every
    default and absolute paths, JSON-able; written as YAML it is the same sequence from any folder. `identity` is what
    decides results: `resolved` without the keys of `compare.NOT_COMPARED`, with paths that were given relative kept
    relative to the YAML, so that the copied folder of a Ray job changes nothing.
    """

    sequence: Sequence
    path: Path
    file: str
    resolved: dict[str, Any]
    identity: dict[str, Any]

    @property
    def run_folder(self) -> Path:
        return Path(self.sequence.storage) / self.sequence.name


def load_sequence(
    path: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    more: list[str] | tuple[str, ...] = (),
    folder: Path | None = None,
) -> Loaded:
    """Reads, overrides and validates a sequence.

    Relative paths in the YAML lie beside it, those of overrides in the current folder; `more` are overrides that were
    written in a file of `folder`, and theirs lie there. Raises ConfigurationError with file, dotted key and fix, in one
    sentence.
    """
    file, full = str(path), Path(os.path.abspath(path))  # noqa: PTH100  links stay: the YAML's folder is as given
    raw = read_yaml(full, file)
    applied: list[Override] = []
    raw.setdefault("storage", Sequence.model_fields["storage"].default)
    relative = resolve_paths(raw, full.parent)
    for text, base in [*((text, Path.cwd()) for text in overrides), *((text, folder or Path.cwd()) for text in more)]:
        override = apply_override(raw, text)
        relative = [place for place in relative if place[: len(override.path)] != override.path]
        relative += resolve_paths(raw, base, within=override.path)
        applied.append(override)
    typed_here = any(override.path == ("storage",) for override in applied)
    try:
        raw["storage"] = resolve_storage(raw["storage"], Path.cwd() if typed_here else full.parent)
        sequence = Sequence.model_validate(raw)
    except ValidationError as error:
        raise explain(error, Sequence, raw, file, applied) from error
    except ConfigurationError as error:
        raise error.in_file(file) from error
    resolved = sequence.model_dump(mode="json")
    for place, value in _scalars(resolved):
        if isinstance(value, float) and not math.isfinite(value):
            where = with_override(file, place, applied)
            raise ConfigurationError(dotted(place), f"{value} is out of range", "write a finite number", where)
    return Loaded(sequence, full, file, resolved, compared(_as_given(resolved, relative, full.parent)))


def _as_given(resolved: dict[str, Any], relative: list[KeyPath], folder: Path) -> dict[str, Any]:
    found = copy.deepcopy(resolved)
    for place in relative:
        at: Any = found
        for part in place[:-1]:
            at = at[part]
        at[place[-1]] = os.path.relpath(at[place[-1]], folder)
    return found


def _scalars(value: Any, at: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _scalars(item, (*at, key))
    else:
        yield at, value
