"""How far a model has drifted on its own samples, and which average that lets go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import repair
from baselines.repair import Repair, drift
from baselines.weight_average import averaged
from continual.api import Artefact, ModelRef, RowReader, SampleRequest, load_model
from tests.kits import baselines as kit


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


def by_hand(rows: Any, before: ModelRef, after: ModelRef) -> tuple[float, float]:
    """The drift document by document in float64, each alone and unpacked: mean per token, error of the ratio."""
    arrays = RowReader(rows).take(np.arange(rows.manifest()["counts"]["rows"]))
    models = [load_model(model.path, "float32").double() for model in (before, after)]
    nats, tokens = [], []
    for document in sorted(set(arrays["documents"].ravel().tolist()) - {-1}):
        here = arrays["documents"] == document
        ids = torch.tensor(arrays["ids"][here])[None]
        learned = torch.tensor(arrays["weights"][here][1:] > 0)
        losses = []
        for model in models:
            with torch.no_grad():
                found = torch.log_softmax(model(ids).logits[0, :-1], -1)
            losses.append(-found[torch.arange(len(found)), ids[0, 1:]][learned].sum().item())
        nats.append(losses[1] - losses[0])
        tokens.append(int(learned.sum()))
    total, mean, count = sum(tokens), sum(nats) / sum(tokens), len(nats)
    squares = sum((n - mean * t) ** 2 for n, t in zip(nats, tokens, strict=True))
    return mean, (count / (count - 1) * squares) ** 0.5 / total


def test_drift_is_the_mean_over_tokens_with_documents_as_units(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    mitigation = Repair(type="repair", drift_budget=1.0, samples=16)
    rows = mitigation.prepare(ctx)["rows"]
    other = kit.model_ref(tmp_path / "other", 5)
    found = drift(rows, ctx.score(ctx.stage_start, rows), ctx.score(other, rows))
    np.testing.assert_allclose(found, by_hand(rows, ctx.stage_start, other), rtol=1e-4)
    assert drift(rows, ctx.score(other, rows), ctx.score(other, rows)) == (0.0, 0.0)


@pytest.mark.parametrize("seed", [None, 3])
def test_drift_is_not_measured_on_samples_that_are_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    ctx = kit.context(tmp_path, [{"type": "context_free", "loss": "nll", "ratio": 1.0, "seed": seed}])
    asked: list[SampleRequest] = []
    sample = ctx.sample

    def noted(request: SampleRequest) -> Artefact:
        asked.append(request)
        return sample(request)

    monkeypatch.setattr(ctx, "sample", noted)
    for mitigation in (*ctx.sequence.mitigation, Repair(type="repair", drift_budget=1.0, samples=16, seed=seed)):
        mitigation.prepare(ctx)
    replayed, measured = (request.resolved(ctx.view) for request in asked)
    assert replayed.seed == (ctx.view.seed if seed is None else seed)
    assert measured.identity() == replayed.identity() | {"seed": measured.seed} != replayed.identity()


def walked(ctx: Any, budget: float, **options: Any) -> tuple[str, ModelRef]:
    mitigation = Repair(type="repair", drift_budget=budget, samples=16, **options)
    [candidate] = mitigation.after_training(ctx, kit.model_ref(Path(ctx.store.root).parent / "trained", 5))
    return candidate.name, candidate.model


def test_the_largest_share_within_the_budget_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = kit.context(tmp_path, [])
    measured = iter([0.4, 0.3, 0.2])
    monkeypatch.setattr(repair, "drift", lambda rows, before, after: (next(measured), 0.01))
    name, model = walked(ctx, 0.2, alphas=(0.25, 0.5, 0.75, 1.0))
    assert name == "repair 0.5"
    trained = kit.model_ref(tmp_path / "trained", 5)
    assert model.hash == averaged(ctx, ctx.stage_start, trained, 0.5).hash
    [manifest] = (Path(ctx.store.root) / "curves").glob("*/manifest.json")
    curve = json.loads(manifest.read_text())["curve"]
    assert [(each["alpha"], each["drift"]) for each in curve] == [(1.0, 0.4), (0.75, 0.3), (0.5, 0.2)]


def test_without_any_within_the_budget_the_stage_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "drift", lambda rows, before, after: (0.4, 0.01))
    ctx = kit.context(tmp_path, [])
    assert walked(ctx, 0.3, alphas=(0.5, 1.0)) == ("repair 0", ctx.stage_start)


def test_a_large_budget_keeps_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = kit.context(tmp_path, [])
    monkeypatch.setattr(repair, "averaged", None)  # no average is made
    name, model = walked(ctx, 100.0)
    assert (name, model.hash) == ("repair 1", kit.model_ref(tmp_path / "same", 5).hash)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"type": "repair", "drift_budget": 1, "alphas": [0, 1]}], "write shares above 0"),
        ([{"type": "repair", "drift_budget": 1}, {"type": "weight_average"}], "keep one of them"),
    ],
)
def test_what_cannot_be_walked_is_refused(tmp_path: Path, entries: list[dict[str, Any]], words: str) -> None:
    ctx = kit.context(tmp_path, entries)
    first, *others = ctx.sequence.mitigation
    assert words in str(first.check(ctx.view, others))
