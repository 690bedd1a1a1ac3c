"""The order of rows depends on seed, step, rank and world size alone."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.training.order import (
    first_ranks,
    in_order,
    permutation,
    rank_share,
    shuffled,
    step_positions,
)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 9))
def test_each_epoch_reads_every_row_once(rows: int, per_step: int, seed: int) -> None:
    steps = 3 * rows
    read = np.concatenate([shuffled(seed, "task", step_positions(per_step, step), rows) for step in range(steps)])
    for epoch in range(len(read) // rows):
        assert sorted(read[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 6))
def test_ranks_share_a_step_without_loss_and_equally(rows: list[int], world_size: int) -> None:
    streams: Any = [SimpleNamespace(name=str(place), rows_per_step=count) for place, count in enumerate(rows)]
    firsts, own = first_ranks(streams, world_size), np.zeros(world_size, np.int64)
    for stream in streams:
        numbers = np.arange(100, 100 + stream.rows_per_step)
        parts = [rank_share(numbers, rank, world_size, firsts[stream.name]) for rank in range(world_size)]
        assert len({len(part) for part in parts}) == 1
        np.testing.assert_array_equal(in_order(parts, firsts[stream.name]), numbers)
        own += [np.count_nonzero(part >= 0) for part in parts]
        assert own.max() - own.min() <= 1, "over all streams, too"


def test_a_resumed_step_reads_the_same_rows() -> None:
    whole = [shuffled(7, "task", step_positions(4, step), 10) for step in range(20)]
    permutation.cache_clear()
    np.testing.assert_array_equal(shuffled(7, "task", step_positions(4, 13), 10), whole[13])


def test_seeds_streams_and_epochs_have_orders_of_their_own() -> None:
    orders = {
        tuple(permutation(seed, stream, epoch, 30)) for seed in (0, 1) for stream in ("task", "b") for epoch in (0, 1)
    }
    assert len(orders) == 8
