"""The loss module against naive float64 formulas on a tiny Llama, and the rules it has to keep."""

import gc
import os
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
)

from continual.contract.loss import Loss
from continual.contract.registry import LOSSES
from continual.models.forward import check_head, hidden_states
from continual.training.losses.kinds import Kl, Nll, TopK
from continual.training.module import LossModule
from tests.kits.models import SIZES, tiny

DOCUMENTS = [[5, 9, 1, 1, 3], [7], [4, 4, 30, 2], [11, 49, 6, 8, 20, 21]]
SHARED = Path(os.environ.get("CONTINUAL_SHARED", Path(__file__).parents[4] / "shared"))
STORIES = SHARED / "models" / "stories260k-hd32"


def packed(documents: list[list[int]], seed: int = 3) -> dict[str, Tensor]:
    """Two rows of two documents each and padding, with random weights; a document's first token has none."""
    random = torch.Generator().manual_seed(seed)
    ids, positions, weights = (torch.zeros(2, 14, dtype=dtype) for dtype in (torch.int32, torch.int32, torch.float32))
    for row in range(2):
        at = 0
        for document in documents[2 * row : 2 * row + 2]:
            end = at + len(document)
            ids[row, at:end] = torch.tensor(document)
            positions[row, at:end] = torch.arange(len(document))
            weights[row, at + 1 : end] = torch.rand(len(document) - 1, generator=random) + 0.1
            at = end
        positions[row, at:] = torch.arange(14 - at)
    return {"ids": ids, "positions": positions, "weights": weights}


def naive(model: Any, batch: dict[str, Tensor], teacher: Any = None) -> Tensor:
    """Each document on its own through the whole model, in float64, with textbook formulas."""
    total = torch.zeros((), dtype=torch.float64)
    for ids, positions, weights in zip(*(batch[key] for key in ("ids", "positions", "weights")), strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(ids)]
        for at, end in pairwise(starts):
            document, weight = ids[None, at:end].long(), weights[at + 1 : end].double()
            log_q = torch.log_softmax(model(document, use_cache=False).logits[0, :-1], -1)
            if teacher is None:
                losses = -log_q.gather(-1, document[0, 1:, None]).squeeze(-1)
            else:
                log_p = torch.log_softmax(teacher(document, use_cache=False).logits[0, :-1], -1).detach()
                losses = (log_p.exp() * (log_p - log_q)).sum(-1)
            total = total + (weight * losses).sum()
    return total


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name].double(), two[name].double(), rtol=tolerance, atol=tolerance)


def topk_columns(teacher: Any, batch: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """What a scoring pass stores: at t the k likeliest tokens at t, given what is before it in the document."""
    shape = (*batch["ids"].shape, k)
    ids, logprobs = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    with torch.no_grad():
        logits = teacher(batch["ids"].long(), position_ids=batch["positions"].long(), use_cache=False).logits
    top = torch.log_softmax(logits.float(), -1).topk(k)
    ids[:, 1:], logprobs[:, 1:] = top.indices[:, :-1], top.values[:, :-1]
    return {"top_ids": ids, "top_logprobs": logprobs}


@pytest.mark.parametrize("spread", [False, True], ids=["at_once", "again"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("loss", [Nll(), Kl()], ids=lambda loss: loss.name)
def test_value_and_gradients_equal_the_formula(loss: Loss, tied: bool, spread: bool) -> None:
    model, batch = tiny(tie_word_embeddings=tied), packed(DOCUMENTS)
    teacher = tiny(seed=1) if loss.teacher else None
    module = LossModule(model, 3, None)
    module.head_is_spread = spread
    value = module(**batch, loss=loss, teacher=teacher)
    value.backward()
    ours = gradients(model)
    expected = naive(model.double(), batch, teacher.double() if teacher else None)
    expected.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    assert_same(ours, gradients(model), 2e-5)


def test_where_weights_are_zero_or_one_it_is_torchs_own_loss_in_chunks() -> None:
    model, batch = tiny(), packed(DOCUMENTS)
    batch["weights"] = (batch["weights"] > 0).float()
    value = LossModule(model, 3, None)(**batch, loss=Nll())
    value.backward()
    ours = gradients(model)
    hidden = hidden_states(model, batch["ids"].long(), batch["positions"].long()).unflatten(0, batch["ids"].shape)
    target = torch.where(batch["weights"] > 0, batch["ids"].long(), -100)[:, 1:].flatten()
    expected = nn.functional.linear_cross_entropy(
        hidden[:, :-1].flatten(0, 1), model.get_output_embeddings().weight, target, reduction="sum",
        options=nn.LinearCrossEntropyOptions(),
    )  # fmt: skip
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    assert_same(ours, gradients(model), 2e-5)


@pytest.mark.parametrize("loss", [Nll(), Kl(), TopK()], ids=lambda loss: loss.name)
def test_chunk_size_does_not_matter(loss: Loss) -> None:
    model, batch, teacher = tiny(), packed(DOCUMENTS), tiny(seed=1)
    extra: dict[str, Any] = {"teacher": teacher if loss.teacher else None, "columns": topk_columns(teacher, batch, 5)}
    found = []
    for chunk_tokens in (1, 2, 5, 1000):
        module = LossModule(model, chunk_tokens, None)
        value = module(**batch, loss=loss, **extra)
        value.backward()
        with torch.no_grad():
            assert torch.equal(module(**batch, loss=loss, **extra), value)
        found.append((float(value), gradients(model)))
    for value, grads in found[:-1]:
        assert value == pytest.approx(found[-1][0], rel=1e-6)
        assert_same(grads, found[-1][1], 1e-5)


@pytest.mark.parametrize("spread", [False, True], ids=["at_once", "again"])
def test_logits_of_several_chunks_are_not_kept(spread: bool) -> None:
    """Between forward and backward: nothing of V entries per position, unless one chunk holds all 12 positions."""
    for chunk_tokens, expected in ((3, 0), (1000, 1)):
        kept: list[weakref.ref[Tensor]] = []

        def keep(tensor: Tensor, kept: list[weakref.ref[Tensor]] = kept) -> Tensor:
            kept.append(weakref.ref(tensor))
            return tensor

        module = LossModule(tiny(), chunk_tokens, None)
        module.head_is_spread = spread
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = module(**packed(DOCUMENTS), loss=Nll())
        gc.collect()
        shapes = [tuple(tensor.shape) for found in kept if (tensor := found()) is not None]
        assert value.requires_grad
        assert len([shape for shape in shapes if shape[-1:] == (50,) and shape[0] <= 12]) == expected


def test_topk_of_all_tokens_is_the_full_kl_and_fewer_bound_it() -> None:
    model, batch, teacher = tiny(), packed(DOCUMENTS), tiny(seed=1)
    module = LossModule(model, 4, None)
    full = module(**batch, loss=Kl(), teacher=teacher)
    full.backward()
    expected = gradients(model)
    bounds = []
    for k in (1, 5, 20, 50):
        value = module(**batch, loss=TopK(), columns=topk_columns(teacher, batch, k))
        value.backward()
        bounds.append(float(value))
        grads = gradients(model)
    assert bounds == sorted(bounds)
    assert bounds[-2] < float(full)
    assert bounds[-1] == pytest.approx(float(full), rel=1e-5)
    assert_same(grads, expected, 2e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_neighbours_do_not_see_each_other(attention: str) -> None:
    """Another first document of the same length changes neither the second's loss nor its gradients."""
    model = tiny(attn_implementation=attention)
    module = LossModule(model, 100, None)
    found = []
    for first in (DOCUMENTS[0], [40, 41, 42, 43, 44]):
        batch = packed([first, DOCUMENTS[3], *DOCUMENTS[1:3]])
        batch["weights"][0, : len(first)] = 0.0
        value = module(**batch, loss=Nll())
        value.backward()
        found.append((float(value), gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert_same(found[0][1], found[1][1], 1e-5)
    # They would without restarting positions: the test can fail.
    leaking = [packed([first, DOCUMENTS[3], *DOCUMENTS[1:3]]) for first in (DOCUMENTS[0], [40, 41, 42, 43, 44])]
    for batch in leaking:
        batch["positions"] = torch.arange(14).expand(2, 14)
        batch["weights"][0, :5] = 0.0
    assert abs(float(module(**leaking[0], loss=Nll())) - float(module(**leaking[1], loss=Nll()))) > 0.01


@pytest.mark.parametrize("loss", [Nll(), Kl()], ids=lambda loss: loss.name)
def test_no_weight_is_a_zero_that_reaches_every_parameter(loss: Loss) -> None:
    model = tiny()
    batch = packed(DOCUMENTS)
    batch["weights"] = torch.zeros_like(batch["weights"])
    batch["weights"][:, 0] = 1.0  # ignored: nothing is before the first token
    value = LossModule(model, 4, None)(**batch, loss=loss, teacher=tiny(seed=1) if loss.teacher else None)
    value.backward()
    assert float(value) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_kl_to_oneself_is_exactly_zero_with_autocast_too() -> None:
    for dtype in (None, torch.bfloat16):
        model, teacher = tiny(), tiny()
        value = LossModule(model, 4, dtype)(**packed(DOCUMENTS), loss=Kl(), teacher=teacher)
        value.backward()
        assert float(value) == 0.0
        assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_autocast_computes_in_bfloat16_and_keeps_float32_parameters() -> None:
    model, batch = tiny(), packed(DOCUMENTS)
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    value = LossModule(model, 4, torch.bfloat16)(**batch, loss=Nll())
    value.backward()
    assert set(seen) == {torch.bfloat16}
    assert value.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert float(value) == pytest.approx(float(LossModule(model, 4, None)(**batch, loss=Nll())), rel=0.02)


def test_dropout_is_the_models_and_the_teacher_has_none() -> None:
    model, batch = tiny(attention_dropout=0.5), packed(DOCUMENTS)
    module = LossModule(model, 4, None)
    module.train()
    assert float(module(**batch, loss=Nll())) != float(module(**batch, loss=Nll()))
    module.eval()
    assert float(module(**batch, loss=Nll())) == pytest.approx(float(naive(model.double(), batch)), rel=1e-6)
    with pytest.raises(ValueError, match=r"teacher\.eval"):
        module(**batch, loss=Kl(), teacher=tiny(seed=1).train())


def test_computing_the_head_again_leaves_dropout_alone() -> None:
    model, batch = tiny(attention_dropout=0.5).train(), packed(DOCUMENTS)
    found = []
    for chunk_tokens in (3, 1000):
        torch.manual_seed(5)
        value = LossModule(model, chunk_tokens, None)(**batch, loss=Nll())
        value.backward()
        found.append((float(value), float(torch.rand(())), gradients(model)))
    assert found[0][:2] == pytest.approx(found[1][:2], rel=1e-6)
    assert_same(found[0][2], found[1][2], 1e-5)


def test_teacher_is_no_part_of_the_module() -> None:
    model, teacher = tiny(), tiny(seed=1)
    module = LossModule(model, 4, None)
    module(**packed(DOCUMENTS), loss=Kl(), teacher=teacher).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert sum(1 for _ in module.parameters()) == sum(1 for _ in model.parameters())
    assert [name.removeprefix("model.") for name in module.state_dict()] == list(model.state_dict())


def test_unknown_or_incomplete_losses_are_refused() -> None:
    module = LossModule(tiny(), 4, None)
    with pytest.raises(ValueError, match="there is no loss `mse`"):
        LOSSES.load("mse")
    with pytest.raises(ValueError, match="`kl` needs `teacher`"):
        module(**packed(DOCUMENTS), loss=Kl())
    with pytest.raises(ValueError, match="`topk` needs `top_ids`, `top_logprobs`"):
        module(**packed(DOCUMENTS), loss=TopK())


def gemma2() -> Gemma2ForCausalLM:
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0)).eval()


def test_capped_logits() -> None:
    model, batch = gemma2(), packed(DOCUMENTS)
    check_head(model)
    value = LossModule(model, 3, None)(**batch, loss=Nll())
    value.backward()
    ours = gradients(model)
    expected = naive(model.double(), batch)
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    assert_same(ours, gradients(model), 2e-5)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no model in {STORIES}; set CONTINUAL_SHARED")
def test_a_trained_model_on_real_text() -> None:
    model = AutoModelForCausalLM.from_pretrained(STORIES)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    check_head(model.eval())
    texts = ["Once upon a time, there was a little girl.", "Lily", "The dog ran.", "One day, she saw a big ball."]
    documents = [tokenizer(text).input_ids[:7] for text in texts]
    batch = packed(documents)
    ours = float(LossModule(model, 4, None)(**batch, loss=Nll())) / float(batch["weights"].sum())
    assert ours == pytest.approx(float(naive(model.double(), batch)) / float(batch["weights"].sum()), rel=1e-5)
    assert ours < 3.5  # a uniform guess is log 512 = 6.2
