"""Every registered method under fsdp and ZeRO: 20 losses of two ranks equal those under ddp."""

from typing import Any

import pytest

from continual.testing import TwoRankConformance, two_ranks
from continual.testing.toys import without_ray
from tests.kits.methods import VARIANTS, replay_stored_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The losses of all methods: they share one start of two processes, which costs more than all the steps."""
    folder = tmp_path_factory.mktemp("strategies")
    jobs = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        replay_stored_rows(monkeypatch)
        for name, attributes in VARIANTS.items():
            method = type(name, (TwoRankConformance,), attributes)()
            jobs[name] = method.jobs(folder / name)
    assert all({"fsdp", "zero"} <= found.keys() for found in jobs.values())
    return two_ranks.losses_of(jobs, folder)


@pytest.mark.parametrize("name", VARIANTS)
def test_strategies_equal_ddp(losses: dict[str, Any], name: str) -> None:
    two_ranks.assert_equal(losses[name])
