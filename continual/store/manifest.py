"""What the manifest of an artefact and the side file of a shard look like, and how a change of them is told."""

import json
from hashlib import sha256
from typing import Any

from continual.store.places import is_inner, is_name

PARTS = {"kind": str, "hash": str, "inputs": dict, "counts": dict, "shards": list, "files": dict}
"""What every manifest has, among other things."""
SEAL = "seal"
"""The key of the hash of all other values of a manifest."""


def is_shard(facts: Any) -> bool:
    """Return whether a value of JSON has what the side file of a shard has."""
    fields = {"file": str, "rows": int, "bytes": int, "sha256": str, "maker": str}
    if not isinstance(facts, dict) or not all(isinstance(facts.get(name), kind) for name, kind in fields.items()):
        return False
    return is_name(facts["file"])


def is_manifest(manifest: Any) -> bool:
    """Return whether a value of JSON is a manifest, and as it was written."""
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), kind) for name, kind in PARTS.items()):
        return False
    numbers, hashes = manifest["counts"].values(), manifest["files"].values()
    whole = all(isinstance(number, int) for number in numbers) and all(isinstance(sha, str) for sha in hashes)
    whole = whole and all(map(is_inner, manifest["files"]))
    # Earlier versions wrote no seal.
    return whole and all(map(is_shard, manifest["shards"])) and manifest.get(SEAL) in (None, seal(manifest))


def seal(manifest: dict[str, Any]) -> str:
    """Return the hash of a manifest's values: a changed count, or hash of a file, is a damage like any other."""
    values = {name: value for name, value in manifest.items() if name != SEAL}
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
