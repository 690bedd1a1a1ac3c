"""Shares that make whole rows."""

from hypothesis import given, settings
from hypothesis import strategies as st

from continual.preflight.check_methods import nearest_ratios


@settings(max_examples=300, deadline=None)
@given(batch_rows=st.integers(1, 4096), ratio=st.floats(1e-4, 8.0))
def test_proposed_ratios_are_whole_rows_next_to_the_wanted_ratio(batch_rows: int, ratio: float) -> None:
    near = nearest_ratios(ratio, batch_rows)
    if not near:
        assert abs(ratio * batch_rows - round(ratio * batch_rows)) <= 1e-6
        assert round(ratio * batch_rows) >= 1
    for value in near:
        assert nearest_ratios(value, batch_rows) == []
        assert abs(value - ratio) * batch_rows < 1 + 1e-6


@given(batch_rows=st.integers(1, 512), rows=st.integers(1, 512))
def test_every_whole_number_of_rows_has_a_ratio(batch_rows: int, rows: int) -> None:
    assert nearest_ratios(rows / batch_rows, batch_rows) == []
