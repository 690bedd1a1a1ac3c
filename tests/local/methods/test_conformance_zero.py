"""Every registered method under ZeRO: 20 losses of two ranks equal those under ddp, or it refuses the strategy."""

from typing import Any

import pytest

from baselines.instruction_synthesis import InstructionSynthesis
from continual.testing import TwoRankConformance, two_ranks
from continual.testing.toys import without_ray
from tests.kits.methods import VARIANTS

pytestmark = pytest.mark.slow
REFUSED = {"l2_start", "ewc-task", "ewc-context_free"}
"""Penalties need whole gradients."""


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The losses of all methods: they share one start of two processes, which costs more than all the steps."""
    folder = tmp_path_factory.mktemp("zero")
    jobs = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        monkeypatch.setattr(InstructionSynthesis, "rows", lambda self, ctx: ctx.read(None))
        for name, attributes in VARIANTS.items():
            method = type(name, (TwoRankConformance,), attributes)()
            jobs[name] = method.jobs(folder / name)
    assert {name for name, pair in jobs.items() if pair is None} == REFUSED
    return two_ranks.losses_of({name: pair for name, pair in jobs.items() if pair is not None}, folder)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in REFUSED])
def test_zero_equals_ddp(losses: dict[str, Any], name: str) -> None:
    two_ranks.assert_equal(**losses[name])
