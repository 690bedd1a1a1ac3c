"""The first batch is waited for beside what the worker does before it needs one."""

import threading
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from continual.training.ingest import begun


def counted(closed: list[bool], until: int, gate: threading.Event | None = None) -> Generator[dict[str, Any]]:
    try:
        if gate:
            gate.wait()
        for step in range(until):
            yield {"step": np.array([step])}
    finally:
        closed.append(True)


def test_all_batches_come_in_their_order_and_the_readers_are_closed() -> None:
    closed: list[bool] = []
    with begun(counted(closed, 5)) as batches:
        assert [int(next(batches)["step"][0]) for _ in range(3)] == [0, 1, 2]
        assert not closed
    assert closed == [True]


def test_the_first_is_made_before_it_is_asked_for() -> None:
    made = threading.Event()

    def one() -> Generator[dict[str, Any]]:
        made.set()
        yield {}

    with begun(one()) as batches:
        assert made.wait(10)
        assert next(batches) == {}


def test_what_the_first_raises_is_raised_where_it_is_asked_for() -> None:
    def broken() -> Generator[dict[str, Any]]:
        raise ValueError("damaged")
        yield

    with begun(broken()) as batches, pytest.raises(ValueError, match="damaged"):
        next(batches)


def test_a_failure_does_not_wait_for_the_first() -> None:
    gate, closed = threading.Event(), list[bool]()
    with pytest.raises(RuntimeError, match="no model"), begun(counted(closed, 1, gate)):
        raise RuntimeError("no model")
    assert not closed
    gate.set()
