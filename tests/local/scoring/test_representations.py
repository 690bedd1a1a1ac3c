"""Representations of texts through Ray: the numbers of this process, resume, and a failure that is named."""

from pathlib import Path

import numpy as np
import pytest

from continual.contract.models import ModelRef
from continual.errors import ContinualError
from continual.models import load_model, load_tokenizer, model_hash
from continual.scoring.hidden import mean_hidden_states
from continual.scoring.representations import read_representations, represent, representations, tokens_of
from continual.store import Store
from tests.kits.project import write_model

pytestmark = pytest.mark.slow
ROW = 16
TEXTS = [" ".join(f"w{(7 * n + k) % 60}" for k in range(1 + n % 20)) for n in range(1300)]


def test_only_a_missing_shard_is_represented_again(local_ray: None, tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "model"))
    ref, store = ModelRef(folder, model_hash(folder)), Store(tmp_path / "store", "tests")
    seen: list[tuple[int, int]] = []

    def ask() -> None:
        represent(store, ref, [TEXTS, TEXTS[:5]], ROW, "float32", progress=lambda *now: seen.append(now))

    ask()
    assert seen == [(done, 4) for done in range(1, 5)]
    found = representations(store, ref.hash, TEXTS, ROW, "float32")
    ids, weights, _ = tokens_of(load_tokenizer(folder), TEXTS, ROW)
    expected = mean_hidden_states(load_model(folder, "float32"), ids, weights, ROW)
    np.testing.assert_allclose(read_representations(found), expected, atol=1e-5)

    kept = {index: found.shard(index).stat().st_mtime_ns for index in (0, 2)}
    (found.path / "manifest.json").unlink()
    found.shard(1).unlink()
    seen.clear()
    ask()
    assert seen == [(1, 1)]
    assert {index: found.shard(index).stat().st_mtime_ns for index in kept} == kept
    assert not found.damage()


def test_a_model_that_cannot_be_loaded_is_named(local_ray: None, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    ref, store = ModelRef(str(folder), model_hash(folder)), Store(tmp_path / "store", "tests")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ContinualError, match="has no weights that transformers finds"):
        represent(store, ref, [TEXTS[:3]], ROW, "float32")
