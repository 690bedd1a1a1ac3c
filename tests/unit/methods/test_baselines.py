"""Methods without training: which rows they choose, how they weigh them, what they refuse."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import stats
from transformers import AutoModelForCausalLM

from baselines.contextual import Contextual, task_prompts
from baselines.easy_samples import EasySamples, easy_weights
from baselines.ewc import Ewc
from baselines.lora import Lora
from baselines.task_replay import TaskReplay, reservoir
from continual.config.load import load_sequence
from continual.config.schema import Sequence
from continual.contract.context import StageRecord
from continual.contract.models import ModelRef
from continual.contract.registry import MITIGATIONS
from continual.contract.requests import SampleRequest
from continual.data.rows import RowReader
from continual.errors import ConfigurationError
from continual.preflight.check import check
from continual.preflight.stages import stage_view
from continual.scoring.fisher import draw_documents, estimate_fisher
from continual.store import Artefact
from tests.kits import baselines as kit
from tests.kits.project import sequence, write_project, write_yaml


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


# task_replay ------------------------------------------------------------------------------------------------------


def test_every_row_is_kept_equally_often() -> None:
    total, size, seeds = 40, 10, 4000
    kept = np.bincount(np.concatenate([reservoir(total, size, seed) for seed in range(seeds)]), minlength=total)
    # One draw without replacement: a count's variance is seeds x p (1 - p), and the counts sum to a constant.
    p = size / total
    chi = ((kept - seeds * p) ** 2).sum() / (seeds * p * (1 - p)) * (total - 1) / total
    assert stats.chi2.sf(chi, total - 1) > 1e-3
    first = np.bincount([reservoir(total, size, seed)[0] for seed in range(seeds)], minlength=total)
    assert stats.chisquare(first).pvalue > 1e-3, "the order is uniform too"


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5))
def test_a_reservoir_is_distinct_deterministic_and_grows_out_of_itself(total: int, size: int, seed: int) -> None:
    kept = reservoir(total, size, seed)
    assert len(set(kept)) == len(kept) == min(size, total)
    assert set(kept) <= set(range(total))
    np.testing.assert_array_equal(kept, reservoir(total, size, seed))


def test_replayed_rows_are_earlier_rows_with_documents_of_their_own(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [{"type": "task_replay", "buffer_rows": 25}])
    other = kit.stored(ctx.store, "other", kit.packed(9, 50))
    ctx.earlier = [*ctx.earlier, StageRecord("more", ctx.stage_start, other, None)]
    mitigation = TaskReplay(type="task_replay", buffer_rows=25)
    found = mitigation.prepare(ctx)["rows"]
    reader = RowReader(found)
    rows = reader.take(np.arange(len(reader)))
    everything = [RowReader(record.rows) for record in ctx.earlier]
    known = {
        tuple(np.concatenate([row["ids"], row["positions"], row["weights"]]))
        for one in everything
        for row in [{k: v[0] for k, v in one.take(np.array([n])).items()} for n in range(len(one))]
    }
    assert len(reader) == 25
    assert {tuple(np.concatenate([rows[k][n] for k in ("ids", "positions", "weights")])) for n in range(25)} <= known
    numbers = rows["documents"][rows["documents"] >= 0]
    starts = (rows["documents"] >= 0) & (rows["positions"] == 0)
    assert sorted(rows["documents"][starts]) == list(range(starts.sum()))
    assert len(set(numbers)) == starts.sum()
    assert found.manifest()["documents"] == starts.sum()
    assert TaskReplay(type="task_replay", buffer_rows=25, seed=1).prepare(ctx)["rows"] != found
    assert not mitigation.active(stage_view(ctx.sequence, 1))
    assert mitigation.active(stage_view(ctx.sequence, 2))


def test_without_a_count_the_stage_reads_no_row_twice(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    ctx.view = dataclasses.replace(ctx.view, steps=5)
    assert len(RowReader(TaskReplay(type="task_replay", ratio=0.5).prepare(ctx)["rows"])) == 10


# easy_samples -----------------------------------------------------------------------------------------------------


def test_weights_of_the_paper() -> None:
    weights = easy_weights(np.array([2.0, 0.0, 4.0, np.nan, 1e9, np.inf]), tau=2.0)
    np.testing.assert_allclose(weights[:3], np.exp([-1.0, 0.0, -2.0]))
    assert weights[3] == 0
    assert weights[5] == 0
    assert 0 < weights[4] < 1e-30


@given(st.lists(st.floats(0.01, 50), min_size=3, max_size=50), st.floats(0.01, 100))
def test_half_weigh_at_least_the_inverse_of_e_and_scale_does_not_matter(losses: list[float], scale: float) -> None:
    f = np.array(losses)
    weights = easy_weights(f, float(np.median(f)))
    assert (weights >= np.exp(-1) * (1 - 1e-12)).sum() >= len(f) / 2
    np.testing.assert_allclose(easy_weights(scale * f, float(np.median(scale * f))), weights, rtol=1e-9)


def easy(ctx: Any, **options: Any) -> tuple[Artefact, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The artefact, all task rows, their weights and their losses."""
    mitigation = EasySamples.model_validate({"type": "easy_samples", **options})
    artefact = mitigation.token_weights(ctx, mitigation.prepare(ctx))
    numbers = np.arange(len(RowReader(ctx.task_rows)))
    nll = RowReader(ctx.score(ctx.stage_start, ctx.task_rows, what="nll")).take(numbers, ("nll",))["nll"]
    weights = RowReader(artefact).take(numbers, ("weights",))["weights"]
    return artefact, RowReader(ctx.task_rows).take(numbers), weights, nll


def test_a_document_has_one_weight_by_the_mean_loss_of_its_trained_tokens(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    artefact, rows, weights, nll = easy(ctx)
    trained = rows["weights"] > 0
    documents = np.unique(rows["documents"][trained])
    losses = {d: nll[trained & (rows["documents"] == d)].astype(np.float64).mean() for d in documents}
    tau = np.median(list(losses.values()))
    assert artefact.manifest()["tau"] == pytest.approx(tau, rel=1e-12)
    for document, loss in losses.items():
        found = weights[trained & (rows["documents"] == document)]
        np.testing.assert_allclose(found, np.exp(-loss / tau), rtol=1e-6)
    assert (weights[~trained] == 0).all()
    again = ctx.score(ctx.stage_start, ctx.task_rows, what="nll")
    assert artefact.manifest()["inputs"]["nll"] == again.hash, "the start of the stage decides, whatever the epoch"


def test_token_weights_use_the_median_token(tmp_path: Path) -> None:
    artefact, rows, weights, nll = easy(kit.context(tmp_path, []), per="token")
    trained = rows["weights"] > 0
    tau = np.median(nll[trained].astype(np.float64))
    assert artefact.manifest()["tau"] == pytest.approx(tau)
    np.testing.assert_allclose(weights[trained], np.exp(-nll[trained] / tau), rtol=1e-5)


@pytest.mark.parametrize("per", ["sample", "token"])
def test_mean_weight_one(tmp_path: Path, per: str) -> None:
    ctx = kit.context(tmp_path, [])
    _, rows, weights, _ = easy(ctx, per=per, normalise="mean")
    _, _, plain, _ = easy(ctx, per=per)
    trained = rows["weights"] > 0
    assert weights[trained].mean() == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(weights, plain / plain[trained].mean(), rtol=1e-5)


def constant_loss(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    def columns(model: Any, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"nll": np.full(rows["ids"].shape, value, np.float32)}

    monkeypatch.setattr("continual.scoring.columns.nll_columns", columns)


def test_equal_losses_give_a_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constant_loss(monkeypatch, 3.0)
    _, rows, weights, _ = easy(kit.context(tmp_path, []))
    np.testing.assert_allclose(weights[rows["weights"] > 0], np.exp(-1), rtol=1e-6)


@pytest.mark.parametrize("loss", [0.0, float("nan")])
def test_a_median_of_zero_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float) -> None:
    constant_loss(monkeypatch, loss)
    with pytest.raises(ConfigurationError, match="nothing to rank"):
        easy(kit.context(tmp_path, []))


# ewc --------------------------------------------------------------------------------------------------------------


def loaded(path: Any, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def squared(model: Any, value: torch.Tensor) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    return {name: g**2 for (name, _), g in zip(model.named_parameters(), found, strict=True)}


def test_fisher_is_the_square_of_a_sequences_gradient_under_drawn_labels(tmp_path: Path) -> None:
    ref = kit.model_ref(tmp_path / "model", 0)
    ids, weights = np.array([3, 7, 1, 20, 9], np.int32), np.array([0, 0, 1, 0, 1], np.float32)
    found = estimate_fisher(loaded(ref.path), [(ids, weights)], seed=4)
    with torch.no_grad():
        p = torch.softmax(loaded(ref.path)(torch.from_numpy(ids.astype(np.int64))[None]).logits[0, [1, 3]], -1)
    drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(4))
    wide = loaded(ref.path, torch.float64)
    log_p = torch.log_softmax(wide(torch.from_numpy(ids.astype(np.int64))[None]).logits[0, [1, 3]], -1)
    for name, value in squared(wide, log_p.gather(-1, drawn).sum()).items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-8)


def test_fisher_is_an_unbiased_estimate(tmp_path: Path) -> None:
    ref, ids = kit.model_ref(tmp_path / "model", 0), np.array([3, 7, 1, 20], np.int32)
    weights = np.array([0, 1, 1, 1], np.float32)
    found = estimate_fisher(loaded(ref.path), [(ids, weights)] * 600, seed=0)
    model = loaded(ref.path)
    log_p = torch.log_softmax(model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0, :-1], -1)
    exact = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for t in range(3):
        for token in range(kit.VOCABULARY):
            for name, value in squared(model, log_p[t, token]).items():
                exact[name] += log_p[t, token].exp().detach() * value
    assert sum(v.sum() for v in found.values()) == pytest.approx(float(sum(v.sum() for v in exact.values())), rel=0.1)
    for name, value in exact.items():
        assert float(found[name].sum()) == pytest.approx(float(value.sum()), rel=0.25), name


def test_documents_are_drawn_whole_and_once(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    rows = RowReader(ctx.task_rows).take(np.arange(len(RowReader(ctx.task_rows))))
    expected = sorted(tuple(rows["ids"][rows["documents"] == document]) for document in range(60))
    found = [tuple(ids) for ids, _ in draw_documents(ctx.task_rows, 1000, 0)]
    assert sorted(found) == expected
    some = [tuple(ids) for ids, _ in draw_documents(ctx.task_rows, 10, 0)]
    assert some == found[:10]
    assert some != [tuple(ids) for ids, _ in draw_documents(ctx.task_rows, 10, 1)]


@pytest.mark.parametrize("rows", ["task", "context_free"])
def test_one_anchor_sums_over_the_stages_before(tmp_path: Path, rows: str) -> None:
    ctx = kit.context(tmp_path, [])
    first = kit.stored(ctx.store, "even earlier", kit.packed(11, 30))
    ctx.earlier = [StageRecord("zero", ctx.start, first, None), *ctx.earlier]
    mitigation = Ewc.model_validate(
        {"type": "ewc", "weight": 4, "decay": 0.5, "estimate_on": rows, "documents": 6, "name": "old"}
    )
    made = mitigation.prepare(ctx)
    [penalty] = mitigation.penalties(ctx, made)
    assert (penalty.name, penalty.centre, penalty.coefficient) == ("old", ctx.stage_start, 2)
    pairs = [(record.model, record.rows) for record in ctx.earlier]
    if rows == "context_free":
        pairs = [
            (model, ctx.sample(SampleRequest(model, 6)))
            for model in (ctx.start, *(record.model for record in ctx.earlier))
        ]
    terms = [
        load_file(ctx.score(model, on, what="fisher", documents=6).path / "fisher.safetensors") for model, on in pairs
    ]
    factors = [0.5**age for age in reversed(range(len(terms)))]
    assert penalty.curvature is not None
    for name, value in load_file(penalty.curvature.path / "fisher.safetensors").items():
        torch.testing.assert_close(value, sum(f * term[name] for f, term in zip(factors, terms, strict=True)))
    assert mitigation.active(stage_view(ctx.sequence, 1)) == (rows == "context_free")


# contextual -------------------------------------------------------------------------------------------------------


def test_prompts_are_what_stands_before_the_loss(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    rows = RowReader(ctx.task_rows).take(np.arange(len(RowReader(ctx.task_rows))))
    expected = set()
    for document in range(60):
        at = rows["documents"] == document
        expected.add(tuple(rows["ids"][at][:2]))
    assert {tuple(prompt) for prompt in task_prompts(ctx.task_rows)} == expected


def test_running_text_has_no_prompts_and_is_refused(tmp_path: Path) -> None:
    rows = kit.packed(0, 20)
    rows["weights"] = ((rows["documents"] >= 0) & (rows["positions"] > 0)).astype(np.float32)
    ctx = kit.context(tmp_path, [])
    ctx.rows = kit.stored(ctx.store, "text", rows)
    assert task_prompts(ctx.task_rows) == []
    with pytest.raises(ConfigurationError, match="have no prompts"):
        Contextual(type="contextual").prepare(ctx)


# At configuration time --------------------------------------------------------------------------------------------

TEXT = {"type": "jsonl", "path": "qa.jsonl", "text": "answer"}
REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([{"type": "lora"}, {"type": "lora", "name": "again"}], "keep one"),
    ([{"type": "lora"}, {"type": "l2_start"}], "keep one"),
    ([{"type": "ewc"}, {"type": "lora"}], "keep one"),
    ([{"type": "weight_average"}, {"type": "weight_average", "name": "again"}], "keep one"),
    ([{"type": "weight_average", "further": [2]}], "alphas from 0 to 1"),
    ([{"type": "context_free", "loss": "nll", "teacher": "cached"}], "no teacher to cache"),
    ([{"type": "pretraining_subset", "teacher": "cached", "data": TEXT}], "no teacher to cache"),
    ([{"type": "pretraining_subset", "data": {**TEXT, "path": "nowhere.jsonl"}}], "nowhere.jsonl"),
]


@pytest.mark.parametrize(("mitigation", "fix"), REFUSED)
def test_what_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, mitigation: list[dict[str, Any]], fix: str
) -> None:
    write_project(tmp_path)
    value = sequence(mitigation=mitigation)
    with pytest.raises(ConfigurationError) as caught:
        check(load_sequence(write_yaml(tmp_path, value), []))
    assert fix in str(caught.value)


def test_prompts_are_asked_for_before_anything_starts(tmp_path: Path) -> None:
    write_project(tmp_path)
    value = sequence(mitigation=[{"type": "contextual"}])
    value["stages"][1]["data"] = TEXT
    with pytest.raises(ConfigurationError, match="stage `two` is running text"):
        check(load_sequence(write_yaml(tmp_path, value), []))


def test_an_adapter_on_random_weights_must_be_meant() -> None:
    value = sequence(mitigation=[], model={"type": "python", "build": "a:b", "tokenizer": "a:c"})
    found = Sequence.model_validate(value)
    first, second = stage_view(found, 1), stage_view(found, 2)
    assert "from_stage" in str(Lora(type="lora").check(first, []))
    assert Lora(type="lora").check(second, []) is None
    assert Lora(type="lora", from_stage=1).check(first, []) is None
    assert not Lora(type="lora", from_stage=2).active(first)


def test_all_stand_in_the_list_together_and_are_registered(tmp_path: Path) -> None:
    write_project(tmp_path)
    listed = ["task_replay", "easy_samples", "lora", "weight_average", "context_free", "contextual"]
    mitigation: list[dict[str, Any]] = [{"type": kind} for kind in listed]
    mitigation.append({"type": "pretraining_subset", "data": TEXT, "loss": "kl", "teacher": "cached"})
    check(load_sequence(write_yaml(tmp_path, sequence(mitigation=mitigation)), []))
    assert {*listed, "pretraining_subset", "l2_start", "ewc"} <= set(MITIGATIONS.names())


def test_candidates_are_named_by_their_alphas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.weight_average.averaged", lambda ctx, before, after, alpha: after)
    ctx = kit.context(tmp_path, [])
    found = MITIGATIONS.load("weight_average").model_validate({"type": "weight_average", "further": [0.25, 0.5, 0.75]})
    names = [candidate.name for candidate in found.after_training(ctx, ModelRef("x", "y"))]
    assert names == ["weight_average 0.5", "weight_average 0.25", "weight_average 0.75"]
