"""Names that were read from a storage lead nowhere else, and nothing outside of it is deleted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from continual.store import Store, folder_damage, publish_folder
from continual.store.json_files import known_json
from continual.store.manifest import is_shard
from continual.store.places import is_inner, is_name, is_path, lies_in, remove, remove_inner


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("0123abcd", "name inner path"), ("..b", "name inner path"), ("ä b", "name inner path"),
        ("part/b.bin", "inner path"), ("/models/x", "path"),
        ("../x", ""), ("a/../b", ""), ("a/..", ""), ("/a/../b", ""), ("..", ""), (".", ""), ("./.", ""), ("/", ""),
        ("", ""), ("a\0b", ""), ("\ud800", ""), ("x" * 256, ""), ("ä" * 128, ""), ("x/" * 2050, ""),
        (None, ""), (3, ""), (["a"], ""),
    ],
)  # fmt: skip
def test_names_and_paths(text: Any, kinds: str) -> None:
    found = {"name": is_name(text), "inner": is_inner(text), "path": is_path(text)}
    assert [kind for kind, is_one in found.items() if is_one] == kinds.split()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user outside of the storage."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder / "thesis.txt"


@pytest.mark.parametrize("seal", [None, "0" * 64])
@pytest.mark.parametrize("name", ["../../../../victim", "{victim}", "link", "link/thesis.txt", "a\0b"])
def test_a_planted_manifest_deletes_nothing_outside(tmp_path: Path, victim: Path, name: str, seal: str | None) -> None:
    store, inputs = Store(tmp_path / "storage" / "store"), {"a": 1}
    artefact = store.artefact("rows", inputs)
    artefact.path.mkdir(parents=True)
    (artefact.path / "link").symlink_to(victim.parent)
    (artefact.path / "shard-000000.arrow").symlink_to(victim)
    manifest = {
        "kind": "rows", "hash": artefact.hash, "inputs": inputs, "counts": {}, "shards": [],
        "files": {name.format(victim=victim.parent): "00"},
    }  # fmt: skip
    (artefact.path / "manifest.json").write_text(json.dumps(manifest | ({"seal": seal} if seal else {})))
    with store.write(artefact, inputs) as writer:
        assert writer is not None, "what was planted is not taken for what was stored"
        with writer.files() as folder:
            (folder / "link").write_text("ours")
        writer.finish()
    assert artefact.complete
    assert (artefact.path / "link").read_text() == "ours"
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_manifest_that_is_no_file_is_a_damaged_one(tmp_path: Path, kind: str) -> None:
    store, inputs = Store(tmp_path), {"a": 1}
    artefact = store.artefact("rows", inputs)
    artefact.path.mkdir(parents=True)
    path = artefact.path / "manifest.json"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert not artefact.complete
    assert known_json(path) == {}
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        writer.finish()
    assert artefact.complete


def test_a_shard_and_a_published_folder_name_their_own_files(tmp_path: Path, victim: Path) -> None:
    shard = {"file": "shard-000000.arrow", "rows": 1, "bytes": 1, "sha256": "0", "maker": ""}
    assert is_shard(shard)
    assert not is_shard({**shard, "file": "../x"})
    (made := tmp_path / "made").mkdir()
    (made / "a").touch()
    publish_folder(made, final := tmp_path / "final", {})
    assert folder_damage(final) is None
    manifest = json.loads((final / "manifest.json").read_text())
    manifest["files"]["../victim/thesis.txt"] = manifest["files"]["a"]
    (final / "manifest.json").write_text(json.dumps(manifest))
    assert folder_damage(final) == "manifest.json is missing or damaged"


def test_what_is_deleted_is_the_link_and_not_what_it_names(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim.parent)
    (tmp_path / "own" / "part").mkdir(parents=True)
    (tmp_path / "own" / "out").symlink_to(victim.parent)
    remove_inner(tmp_path, "link/thesis.txt")
    remove(tmp_path / "own")
    remove(tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim"]
    assert victim.read_text() == "years of work"


def test_a_path_lies_where_its_links_lead(tmp_path: Path, victim: Path) -> None:
    storage, disk = tmp_path / "storage", tmp_path / "disk"
    storage.mkdir()
    disk.mkdir()
    (storage / "store").symlink_to(disk)
    (storage / "x").symlink_to(victim.parent)
    (storage / "round").symlink_to(storage / "round")
    store = Store(storage / "store")
    assert store.holds(storage / "run" / "model")
    assert store.holds(storage / "store" / "models" / "a")
    assert not store.holds(storage / "x" / "thesis.txt")
    assert not store.holds(storage / ".." / "victim")
    assert not lies_in(victim, storage)
    assert not store.holds(storage / "round" / "a")
    assert not store.holds(storage)
    assert not store.holds(disk)
