"""Packing loses nothing, mixes nothing, and its arrays say exactly where each document is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.data.packing import best_fit, concatenate, empty_rows, pack_rows

LENGTHS = st.lists(st.integers(2, 20), min_size=1, max_size=60)


@given(LENGTHS)
def test_every_item_is_in_one_bin_that_holds_it(lengths: list[int]) -> None:
    bins = best_fit(lengths, 20)
    assert sorted(item for one in bins for item in one) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in one) <= 20 for one in bins)


@given(LENGTHS)
def test_at_most_one_bin_is_half_empty(lengths: list[int]) -> None:
    """Best fit opens a bin only for what fits nowhere, so two bins never add up to one."""
    sums = sorted(sum(lengths[item] for item in one) for one in best_fit(lengths, 20))
    assert len(sums) < 2 or sums[0] + sums[1] > 20


def test_a_too_long_item_is_refused() -> None:
    with pytest.raises(ValueError, match="item 1 has length 9"):
        best_fit([3, 9], 8)


@given(LENGTHS, st.integers(0, 5))
def test_rows_hold_the_documents_whole(lengths: list[int], first: int) -> None:
    rng = np.random.default_rng(len(lengths))
    ids = [rng.integers(1, 99, n).astype(np.int32) for n in lengths]
    weights = [rng.random(n).astype(np.float32) for n in lengths]
    rows = pack_rows(ids, weights, first, 20)
    for number, (tokens, loss) in enumerate(zip(ids, weights, strict=True), first):
        row, at = np.nonzero(rows["documents"] == number)
        assert len(set(row)) == 1
        np.testing.assert_array_equal(at, np.arange(at[0], at[0] + len(tokens)))
        np.testing.assert_array_equal(rows["ids"][row, at], tokens)
        np.testing.assert_array_equal(rows["weights"][row, at], loss)
        np.testing.assert_array_equal(rows["positions"][row, at], np.arange(len(tokens)))
    padding = rows["documents"] < 0
    assert not rows["weights"][padding].any()
    assert (rows["documents"] >= 0).sum() == sum(lengths)


def test_padding_restarts_its_positions() -> None:
    rows = pack_rows([np.array([5, 6, 7], np.int32)], [np.ones(3, np.float32)], 0, 6)
    np.testing.assert_array_equal(rows["positions"], [[0, 1, 2, 0, 1, 2]])
    joined = concatenate([rows, empty_rows(1, 6)])
    np.testing.assert_array_equal(joined["documents"][1], [-1] * 6)
