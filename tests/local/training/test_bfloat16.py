"""In bfloat16 a teacher with the model's weights has its logits: the first divergence is zero, not a rounding error."""

from pathlib import Path
from typing import Any

import pytest

from continual.testing import loop, two_ranks
from continual.testing.toys import context, without_ray

KL = {"type": "context_free", "loss": "kl", "ratio": 1.0, "held_out": 2}
LORA = {"type": "lora", "rank": 4}
LOW: dict[str, Any] = {"workers": 2, "precision": "bfloat16", "learning_rate": 0.03}


def test_the_first_divergence_is_zero_under_every_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    strategies = {"ddp": {}, "fsdp": {"strategy": "fsdp"}, "zero2": {"strategy": "deepspeed"}}
    jobs = {}
    for name, keys in strategies.items():
        for title, methods in {name: [KL], f"{name}, LoRA": [KL, LORA]}.items():
            jobs[title] = loop.job_of(context(tmp_path / title, methods, **LOW, **keys))
    losses = two_ranks.losses_of({"low": jobs}, tmp_path)["low"]
    assert set(losses) == set(jobs)
    for name, steps in losses.items():
        assert steps[0]["context_free"] == 0.0, name
        assert steps[-1]["context_free"] > 0.0, name
        assert steps[-1]["task"] < steps[0]["task"], name
