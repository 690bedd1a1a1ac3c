"""Whatever of an artefact is not what was stored is noticed before it is used, made again, and that is said."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from continual.errors import ContinualError
from continual.store import Artefact, FileLock, Store
from continual.store.lock import SILENT_SECONDS
from continual.store.notices import heard_by

SHARDS, FILES = ("rows", "samples", "columns", "replies"), ("scores", "models", "stages", "fisher", "pairs", "other")
WORDS = b'{"score": 0.946}'


class Heard:
    """What the user is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        self.lines.append(f"begin: {what}")
        yield
        self.lines.append("end")


@pytest.fixture
def heard() -> Iterator[Heard]:
    listener = Heard()
    with heard_by(listener):
        yield listener


def make(store: Store, kind: str) -> tuple[Artefact, bool]:
    """Return an artefact of the kind, and whether something was made."""
    inputs = {"of": "everything"}
    artefact, made = store.artefact(kind, inputs), False
    with store.write(artefact, inputs) as writer:
        if writer is not None and kind in SHARDS:
            for index in writer.missing(3):
                writer.put(index, pa.table({"x": [index] * 5}), tokens=5)
                made = True
        elif writer is not None:
            with writer.files() as folder:
                (folder / "part").mkdir()
                for name in ("a.bin", "part/b.bin"):
                    (folder / name).write_bytes(WORDS)
            made = True
        if writer is not None:
            writer.finish(held_out=7)
    return artefact, made


def content(artefact: Artefact) -> dict[str, bytes]:
    paths = {str(path.relative_to(artefact.path)): path for path in artefact.path.rglob("*") if path.is_file()}
    return {n: p.read_bytes() for n, p in paths.items() if n not in (".lock", "manifest.json")}


def flipped(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


def nulled(file: Path) -> None:
    file.write_bytes(bytes(len(file.read_bytes())))


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def counted_otherwise(file: Path) -> None:
    """Change a count, which is JSON as before."""
    facts = json.loads(file.read_text())
    facts["rows" if "rows" in facts else "held_out"] += 1
    file.write_text(json.dumps(facts))


CASES = [
    *((kind, name, damage) for kind in SHARDS for name in ("shard-000001.arrow", "inputs.json")
      for damage in (flipped, nulled, halved, Path.unlink)),
    *((kind, "shard-000002.json", damage) for kind in SHARDS for damage in (counted_otherwise, halved, Path.unlink)),
    *((kind, name, damage) for kind in FILES for name in ("a.bin", "part/b.bin")
      for damage in (flipped, nulled, halved, Path.unlink)),
    *((kind, "manifest.json", damage) for kind in ("rows", "scores")
      for damage in (counted_otherwise, nulled, halved)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "damage"), CASES)
def test_what_is_damaged_is_made_again_and_said(
    tmp_path: Path, heard: Heard, kind: str, name: str, damage: Callable[[Path], None]
) -> None:
    store = Store(tmp_path)
    artefact, made = make(store, kind)
    assert made
    right, manifest = content(artefact), artefact.manifest()
    assert make(store, kind) == (artefact, False)
    assert heard.lines == []
    damage(artefact.path / name)
    if name != "manifest.json":
        assert artefact.damage() == [name]
    make(store, kind)
    assert content(artefact) == right
    assert artefact.manifest()["content"] == manifest["content"]
    assert artefact.manifest()["held_out"] == 7
    assert heard.lines == [f"`{kind}` made again: {name} in {artefact.path} is not what was stored there"]
    assert make(store, kind) == (artefact, False), "and only once"


def test_a_flipped_shard_of_an_unfinished_artefact_is_made_again(tmp_path: Path, heard: Heard) -> None:
    store, artefact = Store(tmp_path), make(Store(tmp_path), "samples")[0]
    (artefact.path / "manifest.json").unlink()
    flipped(artefact.shard(1))
    with store.write(artefact, {}) as writer:
        assert writer is not None
        assert writer.missing(3) == [1]
        assert set(writer.known()) == {0, 2}
        assert writer.counts["tokens"] == 10
    assert all("shard-000001.arrow" in line for line in heard.lines)
    assert heard.lines


@pytest.mark.parametrize("damage", [flipped, nulled, halved, Path.unlink])
def test_who_reads_a_file_of_an_artefact_gets_what_was_stored(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    artefact, _ = make(Store(tmp_path), "fisher")
    assert artefact.file("a.bin").read_bytes() == WORDS
    assert artefact.folder() == artefact.path
    damage(artefact.path / "part" / "b.bin")
    assert artefact.file("a.bin").read_bytes() == WORDS
    with pytest.raises(ContinualError, match=r"b\.bin: the stored file is missing or damaged; delete the folder"):
        artefact.file("part/b.bin")
    with pytest.raises(ContinualError, match=r"b\.bin: the stored file is missing or damaged"):
        artefact.folder()
    with pytest.raises(ContinualError, match=r"c\.bin: the stored file is missing"):
        artefact.file("c.bin")


@pytest.mark.parametrize(("of", "what"), [("database", "this database"), ("folder", "this folder")])
def test_every_wait_for_a_lock_is_said(tmp_path: Path, heard: Heard, of: str, what: str) -> None:
    path, free = tmp_path / "lock", threading.Event()

    def hold() -> None:
        with FileLock(path):
            free.wait(60)

    owner = threading.Thread(target=hold)
    owner.start()
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    threading.Timer(SILENT_SECONDS + 0.5, free.set).start()
    with FileLock(path, of=of):
        pass
    owner.join()
    assert len(heard.lines) == 2
    assert heard.lines[0].startswith(f"begin: another process works on {what}; waiting for it (process ")


def test_a_wait_without_a_terminal_is_said_on_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continual.store.notices.EVERY_SECONDS", 0.1)
    store, free = Store(tmp_path), threading.Event()
    artefact = store.artefact("scores", {})

    def hold() -> None:
        with store.write(artefact, {}):
            free.wait(60)

    owner = threading.Thread(target=hold)
    owner.start()
    while not (artefact.path / "inputs.json").exists():
        time.sleep(0.01)
    threading.Timer(SILENT_SECONDS + 0.6, free.set).start()
    with store.write(artefact, {}):
        pass
    owner.join()
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith("another process works on this evaluation; waiting for it (process ")
    assert said[1].endswith("... 0 s")


@pytest.mark.parametrize("owner", [b"", b"\0" * 40, b"\xff\xfe", b"x" * 5000])
def test_a_damaged_lock_file_is_held_by_another_process(tmp_path: Path, owner: bytes) -> None:
    path = tmp_path / "lock"
    with FileLock(path):
        path.write_bytes(owner)
        with pytest.raises(ContinualError, match="another driver works on this folder") as error, \
                FileLock(path, wait=False):  # fmt: skip
            pass
    assert len(str(error.value)) < 300 + len(str(tmp_path))
