"""A forward pass over rows whose layout is known asks the device for nothing."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from continual.contract.loss import Loss
from continual.models.forward import document_borders
from continual.training.layout import Layout, layout_of
from continual.training.losses.kinds import Kl, Nll
from continual.training.module import LossModule
from continual.training.spread import empty_tensors
from tests.kits.models import tiny
from tests.unit.training.test_loss_module import DOCUMENTS, gradients, packed


@pytest.mark.parametrize("loss", [Nll(), Kl()], ids=lambda loss: loss.name)
def test_it_is_what_the_module_finds_itself(loss: Loss) -> None:
    model, batch = tiny(), packed(DOCUMENTS)
    teacher = tiny(seed=1) if loss.teacher else None
    found = []
    for layout in (None, layout_of(batch["positions"], batch["weights"], borders=True)):
        value = LossModule(model, 3, None)(**batch, loss=loss, teacher=teacher, layout=layout)
        value.backward()
        found.append((value.detach(), gradients(model)))
    (value, slopes), (other, others) = found
    assert torch.equal(value, other)
    assert all(torch.equal(slope, others[name]) for name, slope in slopes.items())


@pytest.mark.parametrize("loss", [Nll(), Kl()], ids=lambda loss: loss.name)
def test_a_pass_looks_at_no_content_where_the_layout_is_known(loss: Loss) -> None:
    """Tensors without content stand for those of a GPU, which would be waited for."""
    with torch.device("meta"):
        models: list[Any] = [tiny(), tiny()]
    with FakeTensorMode():
        for made in models:
            empty_tensors(made, "cpu")
        rows = {name: torch.zeros(2, 14, dtype=torch.long) for name in ("ids", "positions")}
        inputs = rows | {"weights": torch.ones(2, 14), "loss": loss, "teacher": models[1] if loss.teacher else None}
        module = LossModule(models[0], 3, None)
        module(**inputs, layout=Layout(torch.arange(7), torch.ones(7))).backward()
        with pytest.raises(DynamicOutputShapeException):
            module(**inputs)


def test_borders_are_those_of_the_rows() -> None:
    batch = packed(DOCUMENTS)
    layout = layout_of(batch["positions"], batch["weights"], borders=True)
    assert layout.borders is not None
    expected = document_borders(batch["positions"])
    assert {name: torch.as_tensor(value).tolist() for name, value in layout.borders.items()} == {
        name: torch.as_tensor(value).tolist() for name, value in expected.items()
    }
    assert layout_of(batch["positions"], batch["weights"], borders=False).borders is None
