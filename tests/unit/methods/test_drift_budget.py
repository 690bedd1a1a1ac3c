"""`weight: auto`: the dual step, its refusals, and the weight's way through training and resume."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from continual.errors import ConfigurationError
from continual.ledger.lines import read_lines
from continual.ledger.records import Records
from continual.methods.context_free import ContextFree
from continual.methods.drift_budget import LEAST, MOST, START_WEIGHT, dual_step
from continual.preflight.check_methods import check_methods
from continual.preflight.stages import stage_view
from continual.testing.loop import arrays
from continual.training.worker import run_steps
from tests.kits import baselines as kit

weights = st.floats(LEAST, MOST)
nats = st.floats(1e-4, 10.0)


@given(weights, nats, nats, st.floats(0.05, 1.0))
def test_the_weight_rises_exactly_when_the_budget_is_exceeded(
    weight: float, drift: float, budget: float, rate: float
) -> None:
    after = dual_step(weight, drift, budget, rate)
    assert LEAST <= after <= MOST
    assert weight / 2.0001 <= after <= weight * 2.0001
    if drift > budget:
        assert after >= weight
    if drift < budget:
        assert after <= weight
    assert dual_step(weight, budget, budget, rate) == pytest.approx(weight)


@given(st.floats(0.05, 5.0), st.floats(0.02, 0.9), st.floats(0.01, 100.0))
def test_a_binding_budget_is_reached_whatever_the_scale(most: float, part: float, stiffness: float) -> None:
    # A model whose drift falls with the weight, drift = most / (1 + weight / stiffness), and follows at once.
    budget, weight = most * part, START_WEIGHT
    for _ in range(400):
        weight = dual_step(weight, most / (1 + weight / stiffness), budget, 0.3)
    expected = stiffness * (1 / part - 1)
    if LEAST < expected < MOST:
        assert most / (1 + weight / stiffness) == pytest.approx(budget, rel=1e-3)


def test_a_budget_that_does_not_bind_lets_the_weight_go() -> None:
    weight = START_WEIGHT
    for _ in range(50):
        weight = dual_step(weight, 0.01, 1.0, 0.3)
    assert weight == LEAST
    assert dual_step(1.0, -1e-9, 0.1, 0.3) == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{"weight": "auto"}, {"drift_budget": 0.1}, {"weight": "often"}, {"weight": -1}])
def test_weight_and_budget_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ContextFree.model_validate({"type": "context_free", **options})


AUTO = {"type": "context_free", "weight": "auto", "drift_budget": 0.1}


@pytest.mark.parametrize(
    ("mitigation", "reason"),
    [
        ([AUTO, {**AUTO, "name": "second"}], "two `weight: auto`"),
        ([{**AUTO, "loss": "nll"}], "KL on held-out rows"),
        ([{**AUTO, "held_out": 0}], "KL on held-out rows"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, mitigation: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_methods(kit.sequence(tmp_path, mitigation), None)


F, B = "float32", "bfloat16"


@pytest.mark.parametrize(("budget", "teacher", "precision", "dtype", "finer"), [
    (1e-6, "live", B, F, "train.precision: float32"), (9e-4, "live", B, F, "train.precision: float32"),
    (1e-3, "live", B, F, None), (1e-6, "live", F, F, None), (1e-6, "live", F, B, None),
    (1e-5, "cached", F, B, "teacher: live"), (1e-3, "cached", F, B, None), (1e-6, "cached", F, F, None),
    (1e-5, "cached", B, F, "train.precision: float32"), (1e-5, "cached", B, B, "train.precision: float32"),
])  # fmt: skip
def test_a_budget_that_bfloat16_cannot_resolve_is_refused(
    tmp_path: Path, budget: float, teacher: str, precision: str, dtype: str, finer: str | None
) -> None:
    sequence = kit.sequence(tmp_path, [AUTO])
    sequence = sequence.model_copy(update={"model": sequence.model.model_copy(update={"dtype": dtype})})
    view = replace(stage_view(sequence, 1), precision=precision)
    reason = ContextFree.model_validate({**AUTO, "drift_budget": budget, "teacher": teacher}).check(view, [])
    assert (reason is None) == (finer is None)
    if finer:
        assert f"below what bfloat16 resolves; write 0.001 at least, or `{finer}`" in str(reason)


def test_it_measures_on_8192_tokens_unless_told(tmp_path: Path) -> None:
    view = stage_view(kit.sequence(tmp_path, [AUTO]), 1)
    assert ContextFree.model_validate(AUTO).held_out_rows(view) * kit.TOKENS == 8192
    assert ContextFree.model_validate({**AUTO, "held_out": 3}).held_out_rows(view) == 3
    assert ContextFree.model_validate({"type": "context_free"}).held_out_rows(view) == 8
    assert ContextFree.model_validate({"type": "context_free", "loss": "nll"}).held_out_rows(view) == 0


def steps(job: Any, until: int) -> list[dict[str, Any]]:
    """The loop as the workers run it, up to a checkpoint after step `until`; all records so far."""
    job = type(job)(**{**vars(job), "steps": until})
    worker = kit.worker_of(job)
    batches = (arrays(job, step) for step in range(worker.step, until))
    run_steps(worker, batches, Records(job.folder / "metrics.jsonl", worker.step), job.folder / "stop")
    return read_lines(job.folder / "metrics.jsonl")


def without_time(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "data_wait", "time")} for record in records]


def test_the_weight_follows_the_measured_drift_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)
    options = {**AUTO, "drift_budget": 1e-3, "adjust_every": 2, "held_out": 4}
    job = kit.job_of(kit.context(tmp_path / "whole", [options], schedule="constant"))
    whole = steps(job, 12)
    expected = START_WEIGHT
    for record in whole:
        # The weight of a step is what the measurements before it made of it.
        assert record["weight"]["context_free"] == pytest.approx(expected)
        if record["step"] % 2 == 0:
            ratio = record["drift"]["context_free"] / 1e-3
            expected *= math.exp(max(-math.log(2), min(math.log(2), 0.3 * math.log(ratio))))
    assert expected != START_WEIGHT

    again = kit.job_of(kit.context(tmp_path / "resumed", [options], schedule="constant"))
    steps(again, 6)
    assert without_time(steps(again, 12)) == without_time(whole)
