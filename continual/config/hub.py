"""Which commit of a data set of the hub is read: what the hub says or, without it, what the local cache holds."""

import functools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from continual.config.paths import hub_folder, hub_home, offline
from continual.errors import ConfigurationError
from continual.errors.json_text import load_json

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 10.0
"""How long the hub may take to name a commit."""
BRANCH = "main"
ONLINE = "load it once without HF_HUB_OFFLINE"
MOST_NAMED = 3
SHOWN = 8
"""Digits of a commit in a sentence."""


class Prepared(NamedTuple):
    """Data that `datasets` has made ready in its cache, which is all that it reads without the hub."""

    subset: str
    version: str
    commit: str


def resolved_revision(name: str, revision: str | None = None, subset: str | None = None) -> str | None:
    """Return the commit that `revision` (a commit, tag or branch; None: `main`) of a data set stands for now.

    Without the hub it is the one that the cache of `huggingface_hub` notes; of `main` the newest that `datasets` has
    made ready, unless the noted one is. None if neither cache has one.
    """
    if revision and COMMIT.fullmatch(revision):
        return revision
    if asked := asked_commit(name, revision):
        return asked
    noted = noted_commit(name, revision)
    ready = [found.commit for found in prepared(name, subset)]
    return ready[-1] if ready and noted not in ready and revision in (None, BRANCH) else noted


@functools.cache
def asked_commit(name: str, revision: str | None) -> str | None:
    """Return what the hub says, None if it does not. It is asked once in a process: all of a run has one answer."""
    if offline():
        return None
    with suppress(Exception):  # of many libraries: no network, no such name, no access
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(name, revision=revision, timeout=SECONDS).sha)
    return None


def noted_commit(name: str, revision: str | None) -> str | None:
    """Return the commit that a tag or branch had when it was fetched last, None if it is not in the cache."""
    with suppress(OSError):
        return (hub_folder("datasets", name) / "refs" / (revision or BRANCH)).read_text().strip()
    return None


def ready_folder() -> Path:
    """Return the folder in which `datasets` keeps what it has made ready."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or f"{hub_home()}/datasets").expanduser()


def prepared_folder(name: str) -> Path:
    """Return the folder of a data set there, in small letters as `datasets` writes it; it may not be there."""
    owner, _, last = name.rpartition("/")
    last = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", last)).lower()
    return ready_folder() / (f"{owner}___{last}" if owner else last)


def prepared(name: str, subset: str | None = None) -> list[Prepared]:
    """Return what `datasets` has made ready of a data set, or of one configuration of it, the newest last."""
    found = [path for path in prepared_folder(name).glob("*/*/*") if _is_ready(path)]
    found = [path for path in found if subset in (None, path.parts[-3])]
    return [Prepared(*path.parts[-3:]) for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


def _is_ready(folder: Path) -> bool:
    """Return whether the folder <configuration>/<version>/<commit> is complete.

    Data that were loaded with further options lie in folders with other names, which do not count.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(load_json(folder / "dataset_info.json")["config_name"] == folder.parts[-3])
    return False


def prepared_commit(name: str, commit: str | None, subset: str | None = None) -> Prepared:
    """Return what the cache has ready of a commit.

    Raises ConfigurationError, whose key is `path` or `subset`, if that is nothing, or several configurations.
    """
    ready = prepared(name, subset)
    found = {one.subset: one for one in ready if one.commit == commit}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        problem = f"the cache holds several subsets of `{name}`, and HF_HUB_OFFLINE forbids to ask for the default"
        raise ConfigurationError("subset", problem, f"write one of {', '.join(sorted(found))}")
    what = f"`{name}`" if subset is None else f"the subset `{subset}` of `{name}`"
    others = list(dict.fromkeys(one.commit for one in reversed(ready)))
    of = f"of commit {commit[:SHOWN]} " if commit else ""
    there = f", only of {', '.join(other[:SHOWN] for other in others[:MOST_NAMED])}" if others else ""
    problem = f"the cache of `datasets` has nothing {of}of {what}{there}, and the hub cannot be asked"
    raise ConfigurationError("path", problem, ONLINE + (f", or write `revision: {others[0]}`" if others else ""))
