"""Methods in the training loop: exact gradients, cached teachers, adapters, resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from continual.contract.mitigation import Penalty
from continual.errors import ContinualError
from continual.training.job import TrainJob
from continual.training.losses.kinds import Nll
from tests.kits import baselines as kit


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


def reference(model: Any, batch: dict[str, dict[str, Tensor]], name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [B, T - 1, V], the tokens they predict [B, T - 1] and their weights, naively."""
    ids, positions = batch[name]["ids"], batch[name]["positions"]
    logits = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits
    return torch.log_softmax(logits[:, :-1], -1), ids[:, 1:], batch[name]["weights"][:, 1:].double()


def expected_losses(job: Any, batch: Any, model: Any, teachers: dict[str, Any]) -> dict[str, Any]:
    """Return the loss of every stream in float64, by autograd; `teachers` by the name of a stream with a KL."""
    expected: dict[str, Any] = {}
    for stream in job.streams:
        name = stream.name
        log_q, tokens, weights = reference(model, batch, name)
        values = -log_q.gather(-1, tokens[..., None])[..., 0]
        if not isinstance(stream.loss, Nll):
            with torch.no_grad():
                log_p = reference(teachers[name], batch, name)[0]
            values = (log_p.exp() * (log_p - log_q)).sum(-1)
        expected[name] = (weights * values).sum() / (weights > 0).sum()
    return expected


def test_gradients_of_all_components_and_anchors_are_exact(tmp_path: Path) -> None:
    ctx = kit.context(
        tmp_path,
        [
            {"type": "easy_samples"},
            {"type": "context_free", "weight": 0.7, "ratio": 0.5},
            {"type": "context_free", "name": "cached", "weight": 0.3, "teacher": "cached", "model": "start",
             "teacher_top_k": kit.VOCABULARY},
            {"type": "task_replay", "weight": 0.5},
            {"type": "l2_start", "weight": 0.02},
        ],
        micro_rows=2,
    )  # fmt: skip
    job = kit.job_of(ctx)
    model: Any = AutoModelForCausalLM.from_pretrained(ctx.stage_start.path, dtype=torch.float64)
    start: Any = AutoModelForCausalLM.from_pretrained(ctx.start.path, dtype=torch.float64).eval()
    frozen: Any = AutoModelForCausalLM.from_pretrained(ctx.stage_start.path, dtype=torch.float64).eval()
    curvature = ctx.store.artefact("curvature", {})
    torch.manual_seed(0)
    drawn = {name: torch.rand_like(p).float() for name, p in model.named_parameters()}
    with ctx.store.write(curvature, {}) as writer:
        assert writer is not None
        with writer.files() as folder:
            save_file(drawn, Path(folder) / "a.safetensors")
        writer.finish()
    job = TrainJob(**{**vars(job), "penalties": (*job.penalties, Penalty("curved", ctx.start, curvature, 0.05))})
    worker, batch = kit.worker_of(job), kit.batch_of(job, 0)
    # Away from the teacher, where the KL and its gradient are nothing.
    with torch.no_grad():
        for own, wide in zip(worker.strategy.module.model.parameters(), model.parameters(), strict=True):
            wide += 0.05 * torch.randn_like(wide)
            own.copy_(wide)
            wide.copy_(own)
    counts = worker.stepper.counts(batch, stop=False)[0]
    found = worker.stepper.named(worker.stepper.forward_backward(batch, counts).tolist())
    found |= {k: float(v) for k, v in worker.strategy.add_penalties(worker.stepper.penalties).items()}

    expected = expected_losses(job, batch, model, {"context_free": frozen, "cached": start})
    centre = dict(start.named_parameters())
    expected["l2_start"] = 0.02 * sum(((p - centre[n]) ** 2).sum() for n, p in model.named_parameters())
    expected["curved"] = 0.05 * sum(
        (drawn[n].double() * (p - centre[n]) ** 2).sum() for n, p in model.named_parameters()
    )
    sum(expected[name] * worker.stepper.coefficients.get(name, 1.0) for name in expected).backward()
    assert set(found) == set(expected)
    assert len(found) == 6
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    trained = dict(worker.strategy.module.model.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = trained[name].grad
        assert gradient is not None
        assert parameter.grad is not None
        error = (gradient.double() - parameter.grad).norm() / parameter.grad.norm()
        assert error < 1e-5, name


def test_anchors_count_for_the_norm_and_are_recorded(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [{"type": "l2_start", "weight": 10.0}])
    records, _ = kit.train(kit.job_of(ctx), 5)
    model, start = (
        dict(AutoModelForCausalLM.from_pretrained(ref.path).named_parameters()) for ref in (ctx.stage_start, ctx.start)
    )
    distance = sum(float(((model[name] - start[name]) ** 2).sum()) for name in model)
    assert records[0]["loss"]["anchor/l2_start"] == pytest.approx(10 * distance, rel=1e-5)
    assert records[0]["gradient_norm"] == pytest.approx(20 * distance**0.5, rel=0.1)
    values = [record["loss"]["anchor/l2_start"] for record in records]
    assert values == sorted(values, reverse=True), "it pulls back to the start"


def test_an_anchor_without_the_trained_tensors_is_refused(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [{"type": "lora", "rank": 2}])
    job = kit.job_of(ctx)
    job = TrainJob(**{**vars(job), "penalties": (Penalty("pull", ctx.start, None, 1.0),)})
    with pytest.raises(ContinualError, match="its centre has no tensor"):
        kit.worker_of(job)


def test_a_cached_teacher_of_the_whole_vocabulary_is_the_live_one_and_fewer_tokens_are_a_lower_bound(
    tmp_path: Path,
) -> None:
    # A large epsilon: where only the replay has a token, the live KL's first gradient is 0 and the cached one's is
    # its rounding error, which Adam would turn into a step of full size.
    ctx = kit.context(tmp_path, [{"type": "context_free"}], epsilon=1e-4)
    live, worker = kit.train(kit.job_of(ctx))
    drift = worker.drift()["context_free"].value
    assert drift > 0.001
    for k, equal in ((kit.VOCABULARY, True), (3, False)):
        ctx = kit.context(tmp_path, [{"type": "context_free", "teacher": "cached", "teacher_top_k": k}], epsilon=1e-4)
        job = kit.job_of(ctx)
        assert job.streams[1].teacher is None
        cached, trained = kit.train(job)
        measured = trained.drift()["context_free"].value
        if equal:
            assert not trained.stepper.teachers
            found = [[r["loss"][name] for name in ("task", "context_free")] for r in (live[-1], cached[-1])]
            np.testing.assert_allclose(found[1], found[0], atol=1e-4)
            assert measured == pytest.approx(drift, rel=1e-3)
        else:
            # The same weights measured with both teachers.
            trained.strategy.module.load_state_dict(worker.strategy.module.state_dict())
            assert 0 < trained.drift()["context_free"].value < drift


def test_a_rank_without_a_replay_row_reads_padding(tmp_path: Path) -> None:
    from continual.training.batch import to_batch
    from continual.training.ingest import ReadSteps

    ctx = kit.context(tmp_path, [{"type": "context_free", "teacher": "cached", "teacher_top_k": 4, "held_out": 1}])
    job = kit.job_of(ctx)
    read = ReadSteps(job.streams, job.seed, 1, 2)
    batch = to_batch(job.streams, {key: value[None] for key, value in read.read(0).items()})
    assert batch["context_free"]["top_ids"].shape == (1, kit.TOKENS, 4)
    assert not batch["context_free"]["weights"].any()


def test_an_adapter_trains_alone_and_is_exported_merged(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [{"type": "easy_samples"}, {"type": "lora", "rank": 4}, {"type": "context_free"}])
    job = kit.job_of(ctx)
    records, worker = kit.train(job)
    assert records[-1]["loss"]["task"] < records[0]["loss"]["task"]
    worker.export(job.export)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (ctx.stage_start.path, job.export))
    assert set(before.state_dict()) == set(after.state_dict())
    torch.testing.assert_close(after.lm_head.weight, before.lm_head.weight, rtol=0, atol=0)
    ids = kit.batch_of(job, 0)["task"]["ids"]
    trained = worker.strategy.module.model.eval()
    torch.testing.assert_close(after(ids).logits, trained(ids).logits, rtol=1e-5, atol=1e-5)
