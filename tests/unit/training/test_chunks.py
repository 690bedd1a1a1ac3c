"""What is special about chunks whose gradients are computed with their sums, and how large chunks are."""

import pytest
import torch
from torch import nn

from continual.config.schema import Train
from continual.training.losses.kinds import Nll
from continual.training.module import LossModule
from continual.training.resources import chunk_positions
from tests.kits.models import tiny
from tests.unit.training.test_loss_module import DOCUMENTS, assert_same, gradients, packed


@pytest.mark.parametrize(
    ("vocabulary", "positions"), [(512, 131_072), (32_000, 2_097), (65_536, 1_024), (131_072, 512), (262_144, 512)]
)
def test_chunks_are_large_where_the_vocabulary_is_small(vocabulary: int, positions: int) -> None:
    assert chunk_positions(Train(), vocabulary) == positions
    assert chunk_positions(Train(loss_chunk_tokens=7), vocabulary) == 7


@pytest.mark.parametrize(("spread", "positions"), [(False, 12 + 1), (True, 2 * 12)])
def test_logits_are_made_once_unless_the_head_is_spread(spread: bool, positions: int) -> None:
    """Of the 12 positions that predict; one more tells what the head depends on."""
    model = tiny()
    made: list[int] = []
    model.lm_head.register_forward_hook(lambda module, args, output: made.append(len(output)))
    module = LossModule(model, 5, None)
    module.head_is_spread = spread
    module(**packed(DOCUMENTS), loss=Nll()).backward()
    assert sum(made) == positions


def test_weights_that_the_head_finds_elsewhere_are_trained() -> None:
    model, shift = tiny(), nn.Parameter(torch.zeros(50))
    model.lm_head.register_forward_hook(lambda module, args, output: output + shift)
    found = []
    for chunk_tokens in (5, 1000):
        LossModule(model, chunk_tokens, None)(**packed(DOCUMENTS), loss=Nll()).backward()
        assert shift.grad is not None
        found.append(gradients(model) | {"shift": shift.grad})
        shift.grad = None
    assert float(found[0]["shift"].abs().max()) > 0.1
    assert_same(found[0], found[1], 1e-5)


@pytest.mark.parametrize("frozen", ["head", "body"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    model = tiny()
    (model.lm_head if frozen == "head" else model.model).requires_grad_(False)
    found = []
    for chunk_tokens in (5, 1000):
        LossModule(model, chunk_tokens, None)(**packed(DOCUMENTS), loss=Nll()).backward()
        found.append(gradients(model))
    assert ("lm_head.weight" in found[0]) == (frozen == "body")
    assert_same(found[0], found[1], 1e-5)


def test_gradients_add_up_over_passes() -> None:
    """As they do without chunks: the gradients of a second pass are added, those of the first stay what they were."""
    model = tiny()
    for chunk_tokens in (5, 1000):
        for seed in (3, 4):
            (0.5 * LossModule(model, chunk_tokens, None)(**packed(DOCUMENTS, seed), loss=Nll())).backward()
        if chunk_tokens == 5:
            ours = gradients(model)
    assert_same(ours, gradients(model), 1e-5)
