"""What a sweep remembers, and its lock."""

from pathlib import Path

import pytest

from continual.errors import ContinualError
from continual.sweep.state import State, Stopped, lock_sweep
from tests.kits.sweep import load


def test_stops_hold_for_the_scheduler_that_made_them(project: Path) -> None:
    asha = load(project, scheduler="asha").ablation
    state = State.load(project, asha)
    state.stop("one", Stopped(1, 0.5, 0.75))
    state.add({"k": 1})
    state.close(True)
    again = State.load(project, asha)
    assert again.closed
    assert again.stopped == {"one": Stopped(1, 0.5, 0.75)}
    assert again.points == [{"k": 1}]
    assert not State.load(project, load(project, scheduler="asha", reduction_factor=3).ablation).stopped
    assert not State.load(project, load(project).ablation).stopped


def test_one_driver_at_a_time(project: Path) -> None:
    with lock_sweep(project), pytest.raises(ContinualError, match="another driver"), lock_sweep(project):
        pass
