"""Losses against naive float64 formulas with autograd."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from continual.training.losses import sums
from continual.training.losses.sums import kl_sum, kl_topk_sum, nll_sum

CASES = settings(max_examples=60, deadline=None)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Tensor]:
    """Logits from flat to almost one-hot, with weights of which some are zero."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    positions, vocabulary = draw(st.integers(1, 6)), draw(st.integers(2, 50))
    scale, distance = draw(st.sampled_from([0.0, 1e-3, 1.0, 10.0, 60.0])), draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0]))

    def normal() -> Tensor:
        return torch.randn(positions, vocabulary, generator=random)

    logits = scale * normal()
    k = draw(st.integers(1, vocabulary))
    teacher = logits + distance * normal()
    top = torch.log_softmax(teacher.double(), -1).topk(k)
    return {
        "logits": logits,
        "teacher": teacher,
        "targets": torch.randint(vocabulary, (positions,), generator=random),
        "weights": torch.rand(positions, generator=random) * torch.randint(2, (positions,), generator=random),
        "top_ids": top.indices,
        "top_logprobs": top.values.float(),
    }


def naive_nll(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (weights * torch.nn.functional.cross_entropy(logits, targets, reduction="none")).sum()


def naive_kl(logits: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    p, log_q = torch.softmax(teacher, -1), torch.log_softmax(logits, -1)
    return (weights * (p * (torch.log_softmax(teacher, -1) - log_q)).sum(-1)).sum()


def naive_topk(logits: Tensor, ids: Tensor, logprobs: Tensor, weights: Tensor) -> Tensor:
    """k + 1 explicit probabilities per position; the student's rest is the sum of what is not listed."""
    total = logits.new_zeros(())
    for row, listed, teacher, weight in zip(logits, ids, logprobs, weights, strict=True):
        q, p = torch.softmax(row, -1), teacher.exp()
        total = total + weight * (p * (teacher - torch.log_softmax(row, -1)[listed])).sum()
        others = [v for v in range(len(row)) if v not in set(listed.tolist())]
        rest = 1 - p.sum()
        if others and rest > 0:
            total = total + weight * rest * (rest.log() - q[others].sum().log())
    return total


def compare(fast: Callable[..., Tensor], naive: Callable[..., Tensor], logits: Tensor, *rest: Tensor) -> None:
    """Value and gradient in float32 against float64, to the rounding of logits of this size."""
    single = logits.clone().requires_grad_()
    value = fast(single, *rest)
    (3 * value).backward()
    double = logits.double().requires_grad_()
    expected = naive(double, *(t.double() if t.is_floating_point() else t for t in rest))
    (3 * expected).backward()
    assert value.dtype == torch.float32
    assert value.shape == ()
    tolerance = 1e-6 * (1 + float(logits.abs().max())) * logits.shape[0]
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=tolerance)
    assert single.grad is not None
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=3 * tolerance)


@CASES
@given(problems())
def test_nll_equals_the_formula(problem: dict[str, Tensor]) -> None:
    compare(nll_sum, naive_nll, problem["logits"], problem["targets"], problem["weights"])


@CASES
@given(problems())
def test_kl_equals_the_formula(problem: dict[str, Tensor]) -> None:
    compare(kl_sum, naive_kl, problem["logits"], problem["teacher"], problem["weights"])


@CASES
@given(problems())
def test_topk_equals_the_formula(problem: dict[str, Tensor]) -> None:
    assume(float(problem["logits"].abs().max()) <= 30)  # else the naive student's rest underflows even in float64
    compare(kl_topk_sum, naive_topk, problem["logits"], problem["top_ids"], problem["top_logprobs"], problem["weights"])


@CASES
@given(problems())
def test_kl_is_never_negative(problem: dict[str, Tensor]) -> None:
    assert float(kl_sum(problem["logits"], problem["teacher"], problem["weights"])) >= 0
    assert float(kl_topk_sum(problem["logits"], problem["top_ids"], problem["top_logprobs"], problem["weights"])) >= 0


@CASES
@given(problems())
def test_topk_is_a_lower_bound_and_equal_with_every_token(problem: dict[str, Tensor]) -> None:
    logits, teacher, weights = problem["logits"], problem["teacher"], problem["weights"]
    full = float(naive_kl(logits.double(), teacher.double(), weights.double()))
    tolerance = 1e-6 * (1 + float(logits.abs().max()) + float(teacher.abs().max())) * len(logits)
    assert (
        float(kl_topk_sum(logits, problem["top_ids"], problem["top_logprobs"], weights))
        <= full * (1 + 1e-6) + tolerance
    )
    everything = torch.log_softmax(teacher.double(), -1).topk(logits.shape[1])
    value = float(kl_topk_sum(logits, everything.indices, everything.values.float(), weights))
    assert value == pytest.approx(full, rel=1e-5, abs=tolerance)


@CASES
@given(problems(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_kl_of_equal_logits_is_exactly_zero(problem: dict[str, Tensor], dtype: torch.dtype) -> None:
    logits = problem["teacher"].to(dtype).requires_grad_()
    value = kl_sum(logits, logits.detach().clone(), problem["weights"])
    value.backward()
    assert float(value) == 0.0
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert not logits.grad.any()


def test_autograd_would_not_be_exactly_zero() -> None:
    """Why the gradient is in closed form: naive float32 leaves noise that Adam turns into full steps."""
    torch.manual_seed(0)
    logits = torch.randn(64, 512, requires_grad=True)
    naive_kl(logits, logits.detach(), torch.ones(64)).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) > 1e-10


def test_small_kl_is_not_lost_in_float32() -> None:
    """A drift of 4e-7 nats at one position over a large vocabulary, where the plain float32 sum is mostly rounding."""
    errors = []
    for seed in range(8):
        torch.manual_seed(seed)
        logits = 3 * torch.randn(1, 20_000)
        teacher = logits + 1e-3 * torch.randn(1, 20_000)
        expected = float(naive_kl(logits.double(), teacher.double(), torch.ones(1).double()))
        errors.append([abs(float(f(logits, teacher, torch.ones(1))) / expected - 1) for f in (kl_sum, naive_kl)])
    ours, plain = (max(column) for column in zip(*errors, strict=True))
    assert ours < 0.1
    assert plain > 10 * ours


def test_low_precision_logits_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(8, 40).bfloat16(), torch.randn(8, 40).bfloat16()
    weights, targets = torch.rand(8), torch.randint(40, (8,))
    top = torch.log_softmax(teacher.float(), -1).topk(5)
    sums: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (nll_sum, (targets,)),
        (kl_sum, (teacher,)),
        (kl_topk_sum, (top.indices, top.values)),
    ]
    for fast, rest in sums:
        low = logits.clone().requires_grad_()
        value = fast(low, *rest, weights)
        assert torch.equal(value, fast(logits.float(), *rest, weights))
        value.backward()
        assert low.grad is not None
        assert low.grad.dtype == torch.bfloat16


def test_rest_of_a_sure_student_is_stable() -> None:
    """The student is sure of the listed token: 1 - p would be 0 and the loss infinite."""
    logits = torch.tensor([[60.0, 0.0, 0.0, 0.0]], requires_grad=True)
    top_ids, top_logprobs = torch.tensor([[0]]), torch.tensor([[0.5]]).log()
    value = kl_topk_sum(logits, top_ids, top_logprobs, torch.ones(1))
    value.backward()
    # 0.5 log(0.5 / 1) + 0.5 (log 0.5 - log(3 e^-60))
    expected = 0.5 * torch.tensor(0.5).log() + 0.5 * (torch.tensor(0.5).log() + 60 - torch.tensor(3.0).log())
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5 / 3, -0.5 / 3, -0.5 / 3]]))


def test_empty_rest_of_the_teacher_contributes_nothing() -> None:
    """Probabilities that sum to 1, or by rounding to a little more."""
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    for mass in (1.0, 1.0 + 1e-6):
        top_logprobs = (torch.tensor([[0.25, 0.75]]) * mass).log()
        value = kl_topk_sum(logits, torch.tensor([[0, 1]]), top_logprobs, torch.ones(1))
        log_q = torch.log_softmax(logits.detach(), -1)[0, :2]
        expected = (torch.tensor([0.25, 0.75]) * (torch.tensor([0.25, 0.75]).log() - log_q)).sum()
        assert float(value) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("kind", ["nll", "kl", "topk"])
def test_positions_that_are_computed_in_parts_are_those_of_all_at_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    logits, teacher, weights = torch.randn(7, 50), torch.randn(7, 50), torch.rand(7)
    top = torch.log_softmax(teacher, -1).topk(5)
    cases: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "nll": (nll_sum, (torch.randint(50, (7,)),)),
        "kl": (kl_sum, (teacher,)),
        "topk": (kl_topk_sum, (top.indices, top.values)),
    }
    fast, rest = cases[kind]
    found = []
    for cached in (sums.CACHED_LOGITS, 100, 1):  # one part, four of which the last is smaller, one per position
        monkeypatch.setattr(sums, "CACHED_LOGITS", cached)
        ours = logits.clone().requires_grad_()
        value = fast(ours, *rest, weights)
        value.backward()
        found.append((value, ours.grad))
        with torch.no_grad():
            assert torch.equal(fast(ours, *rest, weights), value)
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-6, atol=1e-8)


def test_gradients_that_were_given_away_are_not_given_again() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    value = 2 * nll_sum(logits, torch.tensor([0, 1, 2]), torch.ones(3))
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        value.backward()
