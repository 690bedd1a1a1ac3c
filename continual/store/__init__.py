"""Artefacts: stored results, addressed by the hash of all that produced them."""

from continual.store.artefact import Artefact, Store, Writer, versions
from continual.store.files import digest, hash_file, hash_folder, second_copy, write_atomic
from continual.store.folders import empty_folder, folder_damage, publish_folder
from continual.store.lock import FileLock, Locked

__all__ = [
    "Artefact", "FileLock", "Locked", "Store", "Writer", "digest", "empty_folder", "folder_damage", "hash_file",
    "hash_folder", "publish_folder", "second_copy", "versions", "write_atomic",
]  # fmt: skip
