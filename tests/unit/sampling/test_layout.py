"""How many samples fill the rows asked for, which are held out, and in which order the rows stand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from continual.data.packing import best_fit
from continual.sampling.layout import STEPS, WINDOW, Packing

ROW = 32


def packing(lengths: list[int], held_out: int, failed: frozenset[int] = frozenset()) -> Packing:
    numbers = np.array([n for n in range(len(lengths)) if n not in failed])
    return Packing(numbers, np.array([lengths[n] for n in numbers]), ROW, held_out)


def drawn(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(2, ROW + 1, count).tolist()


@given(st.integers(0, 99), st.integers(1, 3000), st.integers(0, 40), st.sampled_from([0, 1, 7]))
@settings(max_examples=40, deadline=None)
def test_every_sample_is_in_one_row_and_no_row_overflows(seed: int, count: int, held_out: int, failing: int) -> None:
    lengths = drawn(seed, count)
    failed = frozenset(range(0, count, failing)) if failing > 1 else frozenset()
    made = packing(lengths, held_out, failed)
    layout = made.layout(count)
    rows = [*layout.held_out, *(row for window in layout.windows for row in window)]
    assert sorted(place for row in rows for place in row) == list(range(len(made.numbers)))
    assert all(sum(int(made.lengths[place]) for place in row) <= ROW for row in rows)
    for window, bins in enumerate(layout.windows):
        assert {int(made.numbers[place]) // WINDOW for row in bins for place in row} <= {window}
    assert len(layout.held_out) <= held_out
    assert sum(map(len, layout.held_out)) <= len(made.numbers) / 2


@given(st.integers(0, 99), st.integers(1, 200), st.integers(0, 20), st.integers(0, 2000))
@settings(max_examples=30, deadline=None)
def test_what_suffices_does_not_depend_on_what_there_is(seed: int, rows: int, held_out: int, more: int) -> None:
    """The count from just enough samples is that from many more; and each part below it is too few."""
    lengths = drawn(seed, 4000)
    count, layout = packing(lengths, held_out).enough(rows, 4000)
    assert layout is not None
    assert layout.rows >= rows
    assert len(layout.held_out) == held_out
    again, same = packing(lengths[:count], held_out).enough(rows, count)
    assert (again, same) == (count, layout)
    assert packing(lengths[: count + more], held_out).enough(rows, min(count + more, 4000)) == (count, layout)
    too_few = packing(lengths, held_out).enough(rows, count - 1)
    assert too_few[1] is None
    assert count - 1 < too_few[0] <= count


@pytest.mark.parametrize("rows", [1, 5, 100, 900])
def test_the_count_is_the_smallest_in_its_steps(rows: int) -> None:
    lengths = drawn(3, 8000)
    count, _ = packing(lengths, 0).enough(rows, 8000)
    step = max(1, min(WINDOW, rows) // STEPS)
    before = [
        best_fit(lengths[first : min(first + WINDOW, count - step)], ROW) for first in range(0, count - step, WINDOW)
    ]
    assert count % step == 0
    assert sum(map(len, before)) < rows


def test_documents_held_out_have_the_lengths_of_the_others_and_rows_stand_in_random_order() -> None:
    """Two kinds of documents, of 3 and of 30 tokens: sorting by length or first document would show."""
    random = np.random.default_rng(0)
    lengths = random.choice([3, 30], 6000, p=[0.7, 0.3]).tolist()
    layout = packing(lengths, 64).layout(6000)
    held = [lengths[place] for row in layout.held_out for place in row]
    rows = [np.mean([lengths[place] for place in row]) for window in layout.windows for row in window]
    kept = [lengths[place] for window in layout.windows for row in window for place in row]
    assert len(layout.held_out) == 64
    assert stats.mannwhitneyu(held, kept).pvalue > 0.01
    assert stats.spearmanr(np.arange(len(rows)), rows).pvalue > 0.01


def test_rows_held_out_are_never_all_of_them() -> None:
    for count in range(2, 12):
        layout = packing([4] * count, 100).layout(count)
        assert layout.held_out
        assert layout.rows
    assert packing([4], 100).layout(1).held_out == []


@given(st.integers(0, 99), st.integers(2, 400), st.integers(100, 2000))
@settings(max_examples=30, deadline=None)
def test_the_estimate_is_near_what_is_needed(seed: int, rows: int, available: int) -> None:
    lengths = drawn(seed, 4000)
    count, _ = packing(lengths, 0).enough(rows, 4000)
    if available < count:
        estimate = packing(lengths[:available], 0).estimate(rows, available)
        assert count / 1.1 <= estimate <= 1.6 * count + 20


def test_a_third_round_is_rarely_needed() -> None:
    third = 0
    for seed in range(100):
        lengths = drawn(seed, 600)
        count, _ = packing(lengths, 0).enough(100, 600)
        third += packing(lengths[:100], 0).estimate(100, 100) < count
    assert third <= 10
