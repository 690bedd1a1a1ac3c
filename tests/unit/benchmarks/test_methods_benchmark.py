"""`benchmarks/methods`: every arm is a valid configuration; the figures of its table against naive ones."""

import json
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.methods.arms import SEQUENCES
from benchmarks.methods.drift import verdict
from benchmarks.methods.figures import at_new_score
from benchmarks.methods.runs import Arm, command
from benchmarks.record import cell
from continual.config.load import load_sequence
from continual.contract.registry import MITIGATIONS
from continual.preflight.check import check

ARMS = [
    (sequence, name, mitigation)
    for sequence in SEQUENCES.values()
    for name, mitigation in [
        *sequence.arms.items(),
        *((f"{n} {s:g}", m) for n, found in sequence.strengths.items() for s, m in found.items()),
    ]
]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: f"{arm[0].name}-{arm[1]}")
def test_every_arm_is_a_valid_configuration(arm: tuple, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    sequence, name, mitigation = arm
    if sequence.name == "stories":
        request.getfixturevalue("shared")
    _, yaml, *overrides = command(Arm(sequence, name, mitigation, 0), tmp_path)[2:]
    loaded = load_sequence(yaml, overrides)
    check(loaded)
    names = [stage.name for stage in loaded.sequence.stages]
    assert sequence.stage == f"{len(names)}-{names[-1]}"
    assert [json.loads(m.model_dump_json(exclude_unset=True)) for m in loaded.sequence.mitigation] == mitigation


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=lambda sequence: sequence.name)
def test_every_method_has_an_arm_or_a_reason(sequence: object) -> None:
    found = SEQUENCES[sequence.name]  # type: ignore[attr-defined]
    types = {one["type"] for s, _, mitigation in ARMS if s is found for one in mitigation}
    assert types | set(found.left_out) == set(MITIGATIONS.names())
    assert not types & set(found.left_out)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_an_old_score_is_interpolated_and_never_extrapolated(curve: list[tuple[float, float]], target: float) -> None:
    found = at_new_score(curve, target)
    crossings = [k for k in range(1, len(curve)) if curve[k - 1][0] < target <= curve[k][0]]
    if not crossings:
        assert found is None
        return
    (x0, y0), (x1, y1) = curve[crossings[0] - 1], curve[crossings[0]]
    assert found is not None
    assert min(y0, y1) - 1e-12 <= found <= max(y0, y1) + 1e-12
    assert found * (x1 - x0) == pytest.approx(y0 * (x1 - target) + y1 * (target - x0), abs=1e-9)


def test_values_that_were_not_reached_are_counted() -> None:
    assert cell([0.5, 0.7]) == "0.600 ±0.100"
    assert cell([0.5, None, 0.7]) == "0.600 ±0.100 (2 of 3)"
    assert cell([None, None]) == "not reached"


@pytest.mark.parametrize(("drift", "kept"), [(0.1, True), (0.124, True), (0.126, False), (0.074, False)])
def test_a_budget_is_kept_within_a_quarter(drift: float, kept: bool) -> None:
    path = [{"step": s, "drift": 9.0 if s < 5 else drift, "weight": 2.0} for s in range(10)]
    found = verdict(path, 0.1)
    assert found["kept"] is kept
    assert found["drift"] == pytest.approx(fmean([drift] * 5))
