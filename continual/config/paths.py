"""Where relative paths of a sequence start: at its YAML, or for the command line in the current folder."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from continual.config.overrides import KeyPath, dotted
from continual.contract.registry import MITIGATIONS, SOURCES
from continual.errors import ConfigurationError

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray's job supervisor for the driver of a submitted job, and by nothing else (ray 2.60, job_supervisor.py)."""
STORAGE_VARIABLE = "CONTINUAL_STORAGE"
CORRECT_PATH = "correct the path (relative ones start at the YAML's folder, on the command line in the current one)"
HUB_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
HUB_ID = re.compile(rf"(?!.*(?:--|\.\.)){HUB_NAME}(?:/{HUB_NAME})?")
LONGEST_HUB_ID = 96
MOST_SHOWN = 80
"""Characters of a path that are shown of one which is too long."""


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in place of `~`; one of a user that there is not stays as it is written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  `Path.expanduser` raises RuntimeError


def in_job() -> bool:
    """Return whether this process is the driver of a `ray job submit`."""
    return JOB_VARIABLE in os.environ


def is_uri(path: str) -> bool:
    return "://" in path


def looks_like_path(name: str) -> bool:
    """Return whether a name cannot be a hub id (`name` or `owner/name`)."""
    return len(name) > LONGEST_HUB_ID or not HUB_ID.fullmatch(name)


def hub_home() -> str:
    """Return the folder of the Hugging Face libraries, which may begin with `~`."""
    return os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")


def hub_folder(kind: str, name: str) -> Path:
    """Return the folder of a hub id in the local Hugging Face cache; `kind`: `models` or `datasets`."""
    root = Path(os.environ.get("HF_HUB_CACHE") or f"{hub_home()}/hub").expanduser()
    return root / f"{kind}--{name.replace('/', '--')}"


def is_path(name: str, full: Path) -> bool:
    """Return whether a name that may be a hub id, too, is meant as the path `full`.

    It is if something is there, or at least the folder that would hold it: `models/x` beside a folder `models` is a
    mistyped path, unless the cache has the hub's `models/x`.
    """
    if looks_like_path(name) or full.exists():
        return True
    cached = any(hub_folder(kind, name).is_dir() for kind in ("models", "datasets"))
    return "/" in name and full.parent.is_dir() and not cached


def missing_folder(path: str) -> tuple[str, str]:
    """Return problem and fix for a model or data set that is neither a folder here nor a hub id."""
    folder = Path(path)
    reading = "/".join(folder.parts[-2:])
    if folder.is_absolute() and folder.parent.is_dir() and not looks_like_path(reading):
        hub = f"if you mean `{reading}` of the hub, fetch it first: hf download {reading}"
        return f"there is no `{folder.name}` in the folder {folder.parent}", f"{CORRECT_PATH}; {hub}"
    return f"there is no folder {path}", f"{CORRECT_PATH}; a hub id is `name` or `owner/name`"


def offline() -> bool:
    """Return whether the Hugging Face libraries must not use the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def path_places(raw: Any, at: KeyPath = ()) -> Iterator[tuple[dict[str, Any], str, KeyPath, bool]]:
    """Yield every path in a configuration: (mapping, key, place, whether it may be a hub id instead).

    Data sources and local models are found wherever they stand, among a mitigation's options too. `arguments` belong to
    the user's functions and are left alone, as is `storage`, which has its own rule.
    """
    if isinstance(raw, list):
        for number, item in enumerate(raw):
            yield from path_places(item, (*at, number))
    if not isinstance(raw, dict):
        return
    source, mitigation = SOURCES.find(raw.get("type")), MITIGATIONS.find(raw.get("type"))
    for option, hub in source.path_options.items() if source else ():
        if isinstance(raw.get(option), str):
            yield raw, option, (*at, option), hub
    if mitigation and len(at) > 1 and at[-2] == "mitigation":
        for mapping, key, place in mitigation.paths(raw):
            yield mapping, key, (*at, *place), True
    for section, key, hub in (
        ("model", "source", True), ("model", "tokenizer", True),
        ("train", "deepspeed", False), ("evaluate", "include_path", False),
    ):  # fmt: skip
        if at == (section,) and isinstance(raw.get(key), str) and not (key == "tokenizer" and ":" in raw[key]):
            yield raw, key, (*at, key), hub
    for key, value in raw.items():
        if key != "arguments":
            yield from path_places(value, (*at, key))


def resolve_paths(raw: dict[str, Any], base: Path, within: KeyPath = ()) -> list[KeyPath]:
    """Make relative paths absolute, in place; return their places. `within`: only at or below this place.

    What may be a hub id is a path if it looks like one or is there.

    Raises ConfigurationError for a path that the system refuses even to look for.
    """
    changed = []
    for mapping, key, place, hub in list(path_places(raw)):
        if place[: len(within)] != within:
            continue
        path = mapping[key]
        if is_uri(path) or not path:
            continue
        full = Path(os.path.abspath(base / expanded(path)))  # noqa: PTH100  `..` without following links
        _look_for(full, dotted(place))
        if hub and not is_path(path, full):
            continue
        if not Path(path).is_absolute():
            changed.append(place)
        mapping[key] = str(full)
    return changed


def _look_for(path: Path, key: str) -> None:
    """Raise ConfigurationError for a path of which one cannot even say that nothing is there.

    Its names are too long, or it leads through a folder that may not be read: `Path.is_file` and others raise OSError.
    """
    try:
        path.is_file()
    except OSError as error:
        name = str(path)
        short = name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}... ({len(name):,} characters)"
        why = (error.strerror or str(error)).lower()
        raise ConfigurationError(key, f"{short} cannot be looked for ({why})", CORRECT_PATH) from None


def resolve_storage(storage: Any, base: Path) -> Any:
    """Return the storage as an absolute path: next to the YAML, or in a Ray job below $CONTINUAL_STORAGE.

    A job runs in a copied folder whose name changes with its content: what is stored there would be lost.
    Raises ConfigurationError for a relative storage inside a job without that variable.
    """
    if not isinstance(storage, str) or is_uri(storage):
        return storage
    path = expanded(storage)
    if path.is_absolute():
        return str(path)
    if in_job():
        root = os.environ.get(STORAGE_VARIABLE, "")
        if not Path(root).is_absolute():
            problem = f"the relative path `{storage}` would be lost with this Ray job's copied folder"
            fix = f"give an absolute path, or set {STORAGE_VARIABLE} to one for the job"
            raise ConfigurationError("storage", problem, fix)
        # Steps up from the YAML's folder mean nothing from here, and would lead out of the root.
        base, path = Path(root), Path(*(part for part in path.parts if part != ".."))
    return os.path.abspath(base / path)  # noqa: PTH100
