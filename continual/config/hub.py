"""Which commit a hub id stands for: what the hub says or, without a network, what the local cache holds."""

import functools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from continual.config.paths import hub_folder, offline

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 10.0
"""How long the hub may take to name a commit."""


def resolved_revision(kind: Literal["models", "datasets"], name: str, revision: str | None = None) -> str | None:
    """Return the commit that `revision` (a commit, tag or branch; None: `main`) of a hub id stands for now.

    Offline it is the one that the cache of `huggingface_hub` holds, else the newest that `datasets` has made ready;
    None if neither has it.
    """
    if revision and COMMIT.fullmatch(revision):
        return revision
    return _asked(kind, name, revision) or _cached(kind, name, revision or "main")


@functools.cache
def _asked(kind: str, name: str, revision: str | None) -> str | None:
    """Ask the hub once in a process, so that all of a run has one answer."""
    if offline():
        return None
    with suppress(Exception):  # of many libraries: no network, no such name, no access
        from huggingface_hub import HfApi

        info = HfApi().dataset_info if kind == "datasets" else HfApi().model_info
        return str(info(name, revision=revision, timeout=SECONDS).sha)
    return None


def _cached(kind: str, name: str, revision: str) -> str | None:
    hub = hub_folder(kind, name)
    with suppress(OSError):
        return (hub / "refs" / revision).read_text().strip()
    if kind != "datasets" or revision != "main":
        return None
    ready = Path(os.environ.get("HF_DATASETS_CACHE") or hub.parent.parent / "datasets").expanduser()
    # <owner>___<name>/<configuration>/<version>/<hash>, of which `datasets` takes the newest.
    found = [path for path in ready.glob(f"{name.replace('/', '___')}/*/*/*") if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime_ns).name if found else None
