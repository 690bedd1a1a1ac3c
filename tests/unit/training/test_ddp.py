"""What DDP is told about the parameters of a model before it wraps it."""

from typing import Any

import pytest
import torch

from continual.config.schema import Train
from continual.models.trainable import freeze_unreached
from continual.testing.loop import CPU
from continual.training.module import LossModule
from continual.training.strategies.ddp import Ddp
from tests.kits.families import EXPERTS, TRAINED, WIDE, family, with_vision


def ddp(model: Any) -> Ddp:
    return Ddp(Train(), LossModule(model.train(), 8, None), CPU, 1)


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Mixtral", "GPT2"])
def test_a_common_model_uses_all_its_parameters_in_every_row(name: str) -> None:
    assert not ddp(family(name, **TRAINED[name]))._some_unused(CPU)


def test_a_frozen_vision_tower_is_not_waited_for() -> None:
    model = with_vision()
    assert ddp(model)._some_unused(CPU)
    freeze_unreached(model)
    assert not ddp(model)._some_unused(CPU)


def test_a_parameter_that_never_gets_a_gradient_is_found() -> None:
    model = family("HYV4", **WIDE, **EXPERTS)
    strategy = ddp(model)
    assert strategy._some_unused(CPU)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_to_look_for_them_leaves_the_random_state_alone() -> None:
    model = family("GPT2", **TRAINED["GPT2"], attn_pdrop=0.5, resid_pdrop=0.5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ddp(model)._some_unused(CPU)
    assert torch.equal(torch.get_rng_state(), before)
