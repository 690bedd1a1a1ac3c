"""One kernel of AdamW, as on GPUs, leaves a step out by itself, whole or spread over ranks."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.local.training.test_strategies import build, largest, start, train_steps, whole

pytestmark = pytest.mark.slow


def one_kernel(adamw: Any) -> Any:
    return lambda *given, **options: adamw(*given, **options | {"fused": True})


def left_out(rank: int, world: int, folder: Path) -> dict[str, Any]:
    found = {}
    torch.optim.AdamW = one_kernel(torch.optim.AdamW)  # type: ignore[misc]
    for name in ("ddp", "fsdp"):
        strategy = build(name, rank, world)
        begin = whole(strategy)
        for parameter in strategy.module.parameters():
            parameter.grad = torch.ones_like(parameter)
        assert not strategy.step(0.1, partial(torch.full_like, fill_value=True, dtype=torch.bool)), "nobody waits"
        changed = largest(begin, whole(strategy))
        found[name] = (changed, train_steps(strategy, range(3), rank, world))
    return found


def test_what_must_be_left_out_changes_nothing_and_what_follows_is_learned(tmp_path: Path) -> None:
    start(left_out, 2, tmp_path)
    expected = torch.tensor(train_steps(build("ddp", 0, 1), range(3), 0, 1))
    for name, (changed, record) in torch.load(tmp_path / "results-0.pt").items():
        assert changed == 0.0, name
        torch.testing.assert_close(torch.tensor(record), expected, rtol=1e-6, atol=1e-6, msg=name)
