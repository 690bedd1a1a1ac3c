"""Every registered method and its variants, with what the conformance suite is to know of each."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from baselines.instruction_synthesis import InstructionSynthesis
from baselines.predicted_replay import PredictedReplay
from baselines.upstream import Upstream

DATA = {"type": "jsonl", "path": "x.jsonl", "text": "t"}
KL: dict[str, Any] = {"loss": "kl", "held_out": 2}
CACHED: dict[str, Any] = {**KL, "teacher": "cached", "teacher_top_k": 8}
NO_WEIGHT = {"weight": 0.0}
AUTO: dict[str, Any] = {"weight": "auto", "drift_budget": 0.01, "adjust_every": 2}
EQUAL: dict[str, Any] = {"zero": {"normalise": "mean"}, "zero_equal_losses": True}
FISHER = {"type": "ewc", "weight": 10.0, "documents": 8}
WRITTEN = {"type": "instruction_synthesis", "instructions": 8, "instruction_tokens": 4, "answer_tokens": 8}

VARIANTS: dict[str, dict[str, Any]] = {
    "context_free-nll": {"options": {"type": "context_free", "loss": "nll"}, "zero": NO_WEIGHT, "exact_tokens": True},
    "context_free-kl": {"options": {"type": "context_free", **KL}, "zero": NO_WEIGHT, "exact_tokens": True},
    "context_free-cached": {"options": {"type": "context_free", **CACHED}, "zero": NO_WEIGHT, "exact_tokens": True},
    "context_free-auto": {"options": {"type": "context_free", **KL, **AUTO}, "exact_tokens": True},
    "contextual-nll": {"options": {"type": "contextual", "loss": "nll"}, "zero": NO_WEIGHT},
    "contextual-kl": {"options": {"type": "contextual", **KL}, "zero": NO_WEIGHT},
    "pretraining_subset-nll": {
        "options": {"type": "pretraining_subset", "data": DATA, "loss": "nll"}, "zero": NO_WEIGHT, "exact_tokens": True
    },
    "pretraining_subset-kl": {
        "options": {"type": "pretraining_subset", "data": DATA, **KL}, "zero": NO_WEIGHT, "exact_tokens": True
    },
    "pretraining_subset-cached": {
        "options": {"type": "pretraining_subset", "data": DATA, **CACHED}, "zero": NO_WEIGHT, "exact_tokens": True
    },
    "task_replay": {"options": {"type": "task_replay"}, "zero": NO_WEIGHT, "exact_tokens": True},
    "l2_start": {"options": {"type": "l2_start", "weight": 10.0}, "zero": NO_WEIGHT, "exact_tokens": True},
    "ewc-task": {"options": {**FISHER, "estimate_on": "task"}, "zero": NO_WEIGHT, "exact_tokens": True},
    "ewc-context_free": {"options": {**FISHER, "estimate_on": "context_free"}, "zero": NO_WEIGHT, "exact_tokens": True},
    "easy_samples-sample": {"options": {"type": "easy_samples", "per": "sample"}, **EQUAL},
    "easy_samples-token": {"options": {"type": "easy_samples", "per": "token"}, **EQUAL},
    "weight_average": {"options": {"type": "weight_average"}, "zero": {"alpha": 1.0}},
    "repair": {
        "options": {"type": "repair", "drift_budget": 0.001, "samples": 8, "alphas": (0.5,)},
        "zero": {"alphas": (1.0,), "drift_budget": 1e9},
    },
    **{
        f"repair-{toward}": {
            "options": {"type": "repair", "drift_budget": 1e9, "samples": 8, "alphas": (0.5,), "toward": toward},
            "zero": {"alphas": (1.0,)},
        }
        for toward in ("ties", "dare_ties")
    },
    # It has no zero: with nothing of the adapter nothing is trained. What it starts from is compared.
    "lora": {"options": {"type": "lora", "rank": 4, "alpha": 64.0}},
    "predicted_replay": {
        "options": {"type": "predicted_replay", "data": DATA, "scores": "x.parquet", "documents": 4}, "zero": NO_WEIGHT,
        "exact_tokens": True,
    },
    # Its samples need a chat model; the tests of its own make them. Here stored rows stand for what was kept of them.
    "instruction_synthesis": {"options": WRITTEN, "zero": NO_WEIGHT},
}  # fmt: skip


def replay_stored_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stored rows stand for what a committee answers, and for documents that a file of forecasts chooses.

    The tests of these methods make some.
    """
    for method in (InstructionSynthesis, PredictedReplay):
        monkeypatch.setattr(method, "rows", lambda self, ctx: ctx.read(None))
    table = pa.table({"forecast": np.zeros(8)})
    monkeypatch.setattr(Upstream, "read", lambda path, key: Upstream(path, key, table, np.arange(8), np.ones(8, bool)))
