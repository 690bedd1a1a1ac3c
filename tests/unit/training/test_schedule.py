"""The learning rate at its corners, and what holds everywhere."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.config.schema import Train
from continual.training.schedule import learning_rate

PEAK = 2e-3


def test_warmup_rises_linearly_to_the_peak() -> None:
    rates = [learning_rate(step, 10, PEAK, "constant", 4) for step in range(6)]
    assert rates == pytest.approx([PEAK / 4, PEAK / 2, 3 * PEAK / 4, PEAK, PEAK, PEAK])


def test_constant_without_warmup() -> None:
    assert {learning_rate(step, 7, PEAK, "constant", 0) for step in range(7)} == {PEAK}


def test_linear_falls_to_zero_after_the_last_step() -> None:
    rates = [learning_rate(step, 12, PEAK, "linear", 2) for step in range(13)]
    assert rates[2:] == pytest.approx([PEAK * (1 - k / 10) for k in range(11)])


def test_cosine_is_half_in_the_middle() -> None:
    assert learning_rate(0, 10, PEAK, "cosine", 0) == PEAK
    assert learning_rate(5, 10, PEAK, "cosine", 0) == pytest.approx(PEAK / 2)
    assert learning_rate(9, 10, PEAK, "cosine", 0) == pytest.approx(PEAK * (1 + math.cos(0.9 * math.pi)) / 2)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 400), st.sampled_from(["constant", "linear", "cosine"]))
def test_every_step_has_an_effect_and_none_exceeds_the_peak(steps: int, warmup: int, schedule: str) -> None:
    rates = [learning_rate(step, steps, PEAK, schedule, warmup) for step in range(steps)]
    assert all(0 < rate <= PEAK for rate in rates)
    after = rates[warmup:]
    assert after == sorted(after, reverse=True)
    assert rates[:warmup] == sorted(rates[:warmup])


def early_half(progress: float) -> float:
    return 1.0 if progress < 0.5 else 0.25


def test_an_outside_schedule_is_a_function_of_the_progress_after_warmup() -> None:
    schedule = f"{__name__}:early_half"
    rates = [learning_rate(step, 6, PEAK, schedule, 2) for step in range(6)]
    assert rates == [PEAK / 2, PEAK, PEAK, PEAK, PEAK / 4, PEAK / 4]


@pytest.mark.parametrize(("name", "fix"), [("cosin", "did you mean `cosine`"), ("warm", "known: constant, cosine")])
def test_a_misspelled_schedule_is_refused_with_the_known_ones(name: str, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        Train(schedule=name)


def test_a_schedule_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be imported"):
        Train(schedule="no_such_package:half")
