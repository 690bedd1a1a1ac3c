"""Penalties on the weights under every strategy, and wherever DeepSpeed keeps gradients: equal to one process."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from continual.contract.mitigation import Penalty
from continual.contract.models import ModelRef
from continual.training.penalties import LoadedPenalty, load_penalties
from tests.local.training.test_strategies import (
    CPU,
    LAYOUTS,
    STRATEGIES,
    build,
    start,
    tiny_model,
    train_steps,
)

pytestmark = pytest.mark.slow
PLACES = STRATEGIES | {name: keys | {"strategy": "deepspeed"} for name, keys in LAYOUTS.items()}
TRAINED = 4
"""Steps."""


class Curvature:
    """A stored artefact, as far as a penalty reads it."""

    def __init__(self, path: Path):
        self.path = path

    def folder(self) -> Path:
        return self.path


def penalties_of(strategy: Any, folder: Path) -> list[LoadedPenalty]:
    """Return two penalties, with and without curvature, on the distance to a model in `folder`."""
    centre: Any = ModelRef(str(folder / "centre"), "")
    curvature: Any = Curvature(folder / "curvature")
    shapes = {name: tuple(parameter.shape) for name, parameter in tiny_model(0).named_parameters()}
    asked = [Penalty("even", centre, None, 0.01), Penalty("curved", centre, curvature, 0.02)]
    return load_penalties(asked, shapes, strategy.brings, partial(strategy.part, device=CPU))


def penalized(rank: int, world: int, folder: Path) -> dict[str, Any]:
    found = {}
    for name, keys in PLACES.items():
        strategy = build(keys, rank, world)
        penalties = penalties_of(strategy, folder)
        found[name] = train_steps(strategy, range(TRAINED), rank, world, penalties)
        strategy.close()
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_penalties_pull_alike_under_every_strategy(tmp_path: Path, ranks: int) -> None:
    model = tiny_model(seed=3)
    model.save_pretrained(tmp_path / "centre")
    (tmp_path / "curvature").mkdir()
    generator = torch.Generator().manual_seed(4)
    curvature = {name: torch.rand(p.shape, generator=generator) for name, p in model.named_parameters()}
    save_file(curvature, tmp_path / "curvature" / "curvature.safetensors")
    start(penalized, ranks, tmp_path)
    alone = build("ddp", 0, 1)
    expected = torch.tensor(train_steps(alone, range(TRAINED), 0, 1, penalties_of(alone, tmp_path)))
    assert (expected[:, -2:] > 0.1).all(), "the penalties are there"
    for name, record in torch.load(tmp_path / "results-0.pt").items():
        torch.testing.assert_close(torch.tensor(record), expected, rtol=2e-6, atol=1e-6, msg=name)
