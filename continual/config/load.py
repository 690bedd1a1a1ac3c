"""Read a sequence from its YAML and the command line's overrides. Imports neither torch nor ray."""

import copy
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from continual.config.compare import compared, config_fingerprint, differences
from continual.config.overrides import KeyPath, Override, apply_override, dotted
from continual.config.paths import resolve_paths, resolve_storage
from continual.config.problems import Misconfigured, explain, with_override
from continual.config.renames import rename_keys
from continual.config.schema import Sequence
from continual.config.task_files import expand_tags
from continual.config.yaml_text import read_yaml
from continual.errors import ConfigurationError, fingerprinted, left_out, naming_file, redacted, remember

__all__ = ["Loaded", "config_fingerprint", "differences", "load_sequence"]


@dataclass(frozen=True)
class Loaded:
    """A valid sequence and its origin.

    Attributes:
        sequence: The validated sequence.
        path: The YAML's absolute path.
        file: The YAML's name in messages, as typed.
        resolved: The whole configuration with all defaults and absolute paths, as JSON values, for readers: `***`
            stands in place of passwords and tokens. Written as YAML it is the same sequence but for those, whatever
            folder it is read from.
        identity: The part of `resolved` that decides results: without the keys of `compare.NOT_COMPARED`, and with the
            paths that were given as relative ones relative to the YAML, so that a Ray job's copied folder changes
            nothing; hashes stand in place of passwords and tokens.
    """

    sequence: Sequence
    path: Path
    file: str
    resolved: dict[str, Any]
    identity: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def run_folder(self) -> Path:
        """The folder of the sequence's run, <storage>/<name>."""
        return Path(self.sequence.storage) / self.sequence.name


def load_sequence(
    path: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    more: list[str] | tuple[str, ...] = (),
    folder: Path | None = None,
) -> Loaded:
    """Read a sequence, apply overrides, and validate it.

    Args:
        path: The YAML; relative paths in it start at its folder.
        overrides: Overrides from the command line; relative paths in them start at the current folder.
        more: Overrides from a file in `folder`, applied last; relative paths in them start at `folder`.
        folder: See `more`.

    Returns:
        The sequence and its origin.

    Raises:
        ConfigurationError: One sentence with file, dotted key, problem and fix.
    """
    file, full = str(path), Path(os.path.abspath(path))  # noqa: PTH100  keeps links: the YAML's folder is the given one
    raw = read_yaml(full, file)
    applied: list[Override] = []
    raw.setdefault("storage", Sequence.model_fields["storage"].default)
    with naming_file(file):
        notes = rename_keys(raw, Sequence)
        relative = resolve_paths(raw, full.parent)
    for text, base in [*((text, Path.cwd()) for text in overrides), *((text, folder or Path.cwd()) for text in more)]:
        override = apply_override(raw, text)
        with naming_file(file):
            notes += rename_keys(raw, Sequence, override.path)
            relative = [place for place in relative if place[: len(override.path)] != override.path]
            relative += resolve_paths(raw, base, within=override.path)
        applied.append(override)
    typed_here = any(override.path == ("storage",) for override in applied)
    with naming_file(file):
        raw["storage"] = resolve_storage(raw["storage"], Path.cwd() if typed_here else full.parent)
    remember(raw)
    notes += expand_tags(raw)
    try:
        sequence = Sequence.model_validate(raw)
    except ValidationError as error:
        raise explain(error, Sequence, raw, file, applied) from error
    return _loaded(sequence, full, file, applied, relative, notes)


def load_rest(path: str | Path, error: Misconfigured) -> Loaded | None:
    """Load a file without its wrong keys, so that the rest can be checked, too.

    Return None if the rest is no sequence.
    """
    try:
        sequence = Sequence.model_validate(error.rest)
        return _loaded(sequence, Path(os.path.abspath(path)), str(path), [], [], [])  # noqa: PTH100
    except (ValidationError, ConfigurationError):
        return None


def _loaded(
    sequence: Sequence, full: Path, file: str, applied: list[Override], relative: list[KeyPath], notes: list[str]
) -> Loaded:
    """Return a valid sequence as loaded; raise ConfigurationError for a value that no file can hold."""
    resolved = sequence.model_dump(mode="json")
    for place, value in _scalars(resolved):
        if isinstance(value, float) and not math.isfinite(value):
            where = with_override(file, place, applied)
            raise ConfigurationError(dotted(place), f"{value} is out of range", "write a finite number", where)
        if left_out({str(place[-1]): value}):
            where = with_override(file, place, applied)
            problem = "`***` stands for a password or token that was left out of a run's files"
            fix = "write it again, or export it (MLFLOW_TRACKING_PASSWORD, HF_TOKEN)"
            raise ConfigurationError(dotted(place), problem, fix, where)
    identity = fingerprinted(compared(_as_given(resolved, relative, full.parent)))
    return Loaded(sequence, full, file, redacted(resolved), identity, list(dict.fromkeys(notes)))


def _as_given(resolved: dict[str, Any], relative: list[KeyPath], folder: Path) -> dict[str, Any]:
    """Return the configuration with the paths at `relative` as paths from `folder`."""
    config = copy.deepcopy(resolved)
    for place in relative:
        container: Any = config
        for part in place[:-1]:
            container = container[part]
        container[place[-1]] = os.path.relpath(container[place[-1]], folder)
    return config


def _scalars(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value that is neither a list nor a mapping, with its path."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _scalars(item, (*path, key))
    else:
        yield path, value
