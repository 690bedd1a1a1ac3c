"""TIES against its definition in float64, what DARE draws, and merges as models in the store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.merge import Merge, merge, merged, merged_vectors
from continual.api import ModelRef, load_model, versions
from tests.kits import baselines as kit


def ties_by_hand(vectors: list[np.ndarray], density: float) -> np.ndarray:
    """Yadav et al. 2023: keep the largest values of each, elect the sign of the sum, average what agrees."""
    kept = []
    for vector in vectors:
        flat = vector.astype(np.float64).ravel().copy()
        order = np.argsort(-np.abs(flat), kind="stable")
        flat[order[int(density * flat.size) :]] = 0.0
        kept.append(flat.reshape(vector.shape))
    elected = np.where(np.sum(kept, axis=0) >= 0, 1.0, -1.0)
    agree = [np.where(np.sign(one) == elected, one, 0.0) for one in kept]
    count = np.sum([np.sign(one) == elected for one in kept], axis=0)
    return np.sum(agree, axis=0) / np.maximum(count, 1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), count=st.integers(1, 4), rows=st.integers(1, 6), density=st.sampled_from([0.2, 0.5, 0.9])
)
def test_ties_keeps_elects_and_averages(seed: int, count: int, rows: int, density: float) -> None:
    random = np.random.default_rng(seed)
    vectors = [random.normal(size=(rows, 7)).astype(np.float32) for _ in range(count)]
    found = merged_vectors([torch.tensor(vector) for vector in vectors], "ties", density, "0")
    np.testing.assert_allclose(found.numpy(), ties_by_hand(vectors, density), rtol=1e-5, atol=1e-6)


def test_dare_drops_and_scales_up_what_the_seed_says_and_nothing_else() -> None:
    vector = torch.randn(50, 40)
    torch.manual_seed(3)
    after = torch.rand(1)
    torch.manual_seed(3)
    found = merged_vectors([vector], "dare_ties", 0.25, "7 layer")
    assert torch.equal(torch.rand(1), after), "other random numbers stay as they were"
    dropped = found == 0
    torch.testing.assert_close(found[~dropped], (vector / 0.25)[~dropped], rtol=0, atol=0)
    assert abs(dropped.float().mean().item() - 0.75) < 4 * (0.75 * 0.25 / vector.numel()) ** 0.5
    torch.manual_seed(4)
    assert torch.equal(found, merged_vectors([vector], "dare_ties", 0.25, "7 layer"))
    assert not torch.equal(found, merged_vectors([vector], "dare_ties", 0.25, "8 layer"))
    assert not torch.equal(found, merged_vectors([vector], "dare_ties", 0.25, "7 other"))


def parameters(model: ModelRef | Path) -> dict[str, torch.Tensor]:
    return dict(load_model(str(getattr(model, "path", model)), "float32").named_parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_a_merge_is_the_base_and_the_merged_task_vectors(tmp_path: Path, tied: bool) -> None:
    models = [kit.model_ref(tmp_path / str(seed), seed, tied) for seed in range(3)]
    (Path(models[-1].path) / "tokenizer.json").write_text("{}\n")
    (tmp_path / "out").mkdir()
    merge([model.path for model in models], "ties", 0.3, 0, str(tmp_path / "out"))
    base, one, two = map(parameters, models)
    for name, found in parameters(tmp_path / "out").items():
        vectors = [(one[name] - base[name]).detach().numpy(), (two[name] - one[name]).detach().numpy()]
        wanted = base[name].detach().double().numpy() + ties_by_hand(vectors, 0.3)
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]


def test_an_only_stage_is_trimmed(tmp_path: Path) -> None:
    models = [kit.model_ref(tmp_path / str(seed), seed) for seed in range(2)]
    (tmp_path / "out").mkdir()
    merge([model.path for model in models], "ties", 0.3, 0, str(tmp_path / "out"))
    before, after = map(parameters, models)
    for name, found in parameters(tmp_path / "out").items():
        moved = found != before[name]
        assert moved.sum() <= int(0.3 * found.numel())
        torch.testing.assert_close(found[moved], after[name][moved])


@pytest.mark.parametrize("how", ["ties", "dare_ties"])
def test_a_merge_is_made_once_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Merge) -> None:
    kit.without_ray(monkeypatch)
    ctx: Any = kit.context(tmp_path, [])
    models = [ctx.start, ctx.stage_start, kit.model_ref(tmp_path / "trained", 5)]
    made = merged(ctx, models, how, 0.2, 1)
    weights = Path(made.path) / "model.safetensors"
    written, content = weights.stat().st_mtime_ns, weights.read_bytes()
    assert merged(ctx, models, how, 0.2, 1) == made
    assert weights.stat().st_mtime_ns == written
    weights.unlink()
    assert merged(ctx, models, how, 0.2, 1) == made
    assert weights.read_bytes() == content
    assert (merged(ctx, models, how, 0.2, 2) == made) == (how == "ties"), "only DARE draws"
    assert merged(ctx, models, how, 0.3, 1) != made
    assert merged(ctx, models[1:], how, 0.2, 1) != made
    [artefact] = {Path(made.path).name}
    inputs = ctx.store.artefact("models", {
        "merge": how, "models": [model.hash for model in models], "density": 0.2, "versions": versions(("peft",)),
        **({"seed": 1} if how == "dare_ties" else {}),
    })  # fmt: skip
    assert inputs.hash == artefact
