"""Shares that make whole rows."""

from hypothesis import given, settings
from hypothesis import strategies as st

from continual.preflight.check_methods import nearest_shares


@settings(max_examples=300, deadline=None)
@given(batch_rows=st.integers(1, 4096), share=st.floats(1e-4, 8.0))
def test_proposed_shares_are_whole_rows_next_to_the_wanted_share(batch_rows: int, share: float) -> None:
    near = nearest_shares(share, batch_rows)
    if not near:
        assert abs(share * batch_rows - round(share * batch_rows)) <= 1e-6
        assert round(share * batch_rows) >= 1
    for value in near:
        assert nearest_shares(value, batch_rows) == []
        assert abs(value - share) * batch_rows < 1 + 1e-6


@given(batch_rows=st.integers(1, 512), rows=st.integers(1, 512))
def test_every_whole_number_of_rows_has_a_share(batch_rows: int, rows: int) -> None:
    assert nearest_shares(rows / batch_rows, batch_rows) == []
