"""Artefacts are addressed by their inputs, published whole, made once, and noticed when damaged."""

import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.errors import ContinualError
from continual.store import Artefact, FileLock, Locked, Store, digest, hash_file, hash_folder, second_copy, write_atomic
from continual.store.files import temporary_name

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def table(value: int, rows: int = 3) -> pa.Table:
    return pa.table({"x": np.full(rows, value)})


def filled(store: Store, inputs: dict[str, int], shards: int = 2) -> Artefact:
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        for index in writer.missing(shards):
            writer.put(index, table(index), tokens=10)
        writer.finish(extra="yes")
    return artefact


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_an_address_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_other_inputs_have_another_address(tmp_path: Path) -> None:
    store = Store(tmp_path)
    hashes = {store.artefact(kind, {"a": a}).hash for kind in ("rows", "samples") for a in (1, 2, "1")}
    assert len(hashes) == 6


def test_the_manifest_says_what_was_made_from_what(tmp_path: Path) -> None:
    artefact = filled(Store(tmp_path, "maker-1"), {"a": 1})
    manifest = artefact.manifest()
    assert manifest["inputs"] == {"a": 1}
    assert manifest["extra"] == "yes"
    assert manifest["maker"] == "maker-1"
    assert manifest["counts"]["rows"] == 6
    assert manifest["counts"]["tokens"] == 20
    assert manifest["counts"]["shards"] == 2
    assert "ray" in manifest["versions"]
    assert artefact.damage() == []
    assert [t["x"][0].as_py() for t in artefact.tables()] == [0, 1]


def test_what_is_complete_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artefact = filled(store, {"a": 1})
    with store.write(artefact, {"a": 1}) as writer:
        assert writer is None


def test_after_an_interruption_only_missing_shards_are_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("rows", {"a": 1})
    with pytest.raises(KeyboardInterrupt), store.write(artefact, {"a": 1}) as writer:
        assert writer is not None
        writer.put(0, table(0))
        writer.put(2, table(2))
        raise KeyboardInterrupt
    assert not artefact.complete
    assert "KeyboardInterrupt" in str(artefact.failure())
    artefact.shard(2).write_bytes(b"cut")
    with store.write(artefact, {"a": 1}) as writer:
        assert writer is not None
        assert writer.missing(3) == [1, 2]
        assert artefact.failure() is None


def test_two_makers_at_the_same_moment_make_it_once(tmp_path: Path) -> None:
    store, made = Store(tmp_path), []
    artefact = store.artefact("rows", {"a": 1})

    def make(name: int) -> None:
        with store.write(artefact, {"a": 1}) as writer:
            if writer is not None:
                made.append(name)
                time.sleep(0.3)
                writer.put(0, table(0))
                writer.finish()

    threads = [threading.Thread(target=make, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert artefact.complete


def test_damage_is_named(tmp_path: Path) -> None:
    artefact = filled(Store(tmp_path), {"a": 1})
    content = bytearray(artefact.shard(1).read_bytes())
    content[50] ^= 1
    artefact.shard(1).write_bytes(content)
    assert artefact.damage() == ["shard-000001.arrow"]


def test_flipped_bytes_are_noticed_before_a_table_is_used(tmp_path: Path) -> None:
    artefact = filled(Store(tmp_path), {"a": 1})
    whole = artefact.shard(1).read_bytes()
    for place in (whole.index(b"\x01"), len(whole) // 2):
        content = bytearray(whole)
        content[place] ^= 4
        artefact.shard(1).write_bytes(content)
        assert [t["x"][0].as_py() for t in [artefact.table(0)]] == [0]
        with pytest.raises(ContinualError, match=r"shard-000001\.arrow: the stored file is missing or damaged; delete"):
            artefact.table(1)
    artefact.shard(1).write_bytes(whole)
    assert artefact.table(1)["x"][0].as_py() == 1


def test_a_shard_is_verified_once_per_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = filled(Store(tmp_path), {"a": 1})
    hashed: list[str] = []

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return hash_file(path)

    monkeypatch.setattr("continual.store.files.hash_file", counting)
    for index in (0, 1, 0):
        pickle.loads(pickle.dumps(artefact)).table(index)
    assert hashed == ["shard-000000.arrow", "shard-000001.arrow"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"kind": "rows"}', "\x00\xff"])
def test_a_half_written_manifest_is_a_sentence(tmp_path: Path, content: str) -> None:
    artefact = filled(Store(tmp_path), {"a": 1})
    (artefact.path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(ContinualError, match=r"manifest\.json: the stored file is missing or damaged; delete"):
        artefact.manifest()


def test_two_writers_never_share_a_temporary_name(tmp_path: Path) -> None:
    names = {temporary_name(tmp_path / "a.json") for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.parent == tmp_path and name.name.startswith(".a.json.") for name in names)


def _hold(path: str) -> None:
    lock = FileLock(path)
    lock.__enter__()
    Path(path + ".held").touch()
    time.sleep(60)


def test_a_dead_owner_keeps_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(path),))
    owner.start()
    while not Path(f"{path}.held").exists():
        time.sleep(0.05)
    with pytest.raises(Locked, match=f"process {owner.pid}"), FileLock(path, wait=False):
        pass
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    with FileLock(path, wait=False):
        assert f"process {os.getpid()}" in path.read_text()


def test_hashes_of_folders_see_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1")
    first = hash_folder(tmp_path)
    write_atomic(tmp_path / "a.txt", "2")
    second = hash_folder(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({first, second, hash_folder(tmp_path)}) == 3
    (tmp_path / ".hidden").write_text("x")
    assert hash_folder(tmp_path, (".json",)) == digest([])


def test_a_writer_counts_what_is_stored_without_reading_it_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("rows", {"a": 1})
    with pytest.raises(KeyboardInterrupt), store.write(artefact, {"a": 1}) as writer:
        assert writer is not None
        writer.put(0, table(0), tokens=10)
        raise KeyboardInterrupt
    with store.write(artefact, {"a": 1}) as writer:
        assert writer is not None
        assert writer.missing(3) == [1, 2]
        assert writer.counts["tokens"] == 10
        artefact.shard(0).with_suffix(".json").unlink()
        writer.put(1, table(1), tokens=20)
        assert writer.counts["tokens"] == 30
        assert writer.counts["rows"] == 6


def test_an_artefact_reads_the_facts_of_a_shard_once(tmp_path: Path) -> None:
    artefact = filled(Store(tmp_path), {"a": 1})
    known = list(artefact.shards())
    artefact.shard(0).with_suffix(".json").unlink()
    assert artefact.shards() == known
    copy = pickle.loads(pickle.dumps(artefact))
    assert copy == artefact
    assert copy.shards() == []


@pytest.mark.parametrize("name", ["manifest.json", "failed.txt", "inputs.json", "shard-000000.arrow", ".lock"])
def test_a_maker_cannot_take_the_names_of_the_store(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("models", {"a": 1})
    with pytest.raises(ContinualError, match="a name of the store's own"), store.write(artefact, {"a": 1}) as writer:
        assert writer is not None
        with writer.files() as folder:
            (folder / "weights.bin").write_bytes(b"w")
            (folder / name).write_text("{}")
    assert not artefact.complete
    assert not (artefact.path / "weights.bin").exists(), "the files appear together or not at all"
    assert not list(artefact.path.glob(".files*"))


@pytest.mark.parametrize("content", ["{}", '{"files": {}, "steps": 3}', "half"])
def test_a_foreign_manifest_does_not_complete_an_artefact(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("models", {"a": 1})
    with pytest.raises(ContinualError, match=r"wrote a file `manifest\.json`"), store.write(artefact, {}) as writer:
        assert writer is not None
        (artefact.path / "manifest.json").write_text(content)
        assert not artefact.complete
        writer.finish()
    with store.write(artefact, {}) as writer:
        assert writer is not None
        with writer.files() as folder:
            (folder / "model").mkdir()
            (folder / "model" / "manifest.json").write_text("its own, one level down")
        writer.finish()
    assert artefact.complete
    assert set(artefact.manifest()["files"]) == {"inputs.json", "model/manifest.json"}


def test_the_manifest_of_another_artefact_is_not_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, other = filled(store, {"a": 1}), store.artefact("rows", {"a": 2})
    shutil.copytree(first.path, other.path)
    assert first.complete
    assert not other.complete


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_a_second_copy_is_apart_or_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("continual.store.files.COPIED_BYTES", most)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"12345")
    second_copy(first, second)
    assert second.read_bytes() == b"12345"
    if first.samefile(second):
        assert first.stat().st_mode & 0o222 == 0
    else:
        second.write_bytes(b"54321")
        assert first.read_bytes() == b"12345"
