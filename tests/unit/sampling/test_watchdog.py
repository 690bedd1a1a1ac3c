"""What an engine samples is passed on; that it samples nothing any more, or why it ended, is raised."""

import threading
from collections.abc import Iterator

import pytest

from continual.errors import ContinualError
from continual.sampling.watchdog import watched


def test_everything_comes_in_order() -> None:
    assert list(watched(iter(range(1000)), 5.0)) == list(range(1000))
    assert list(watched(iter([]), 5.0)) == []


def test_what_ends_the_sampling_is_raised_after_what_was_sampled() -> None:
    def sampled() -> Iterator[int]:
        yield 1
        raise ValueError("out of memory")

    found = watched(sampled(), 5.0)
    assert next(found) == 1
    with pytest.raises(ValueError, match="out of memory"):
        next(found)


def test_a_stop_is_an_error_that_names_the_key() -> None:
    never = threading.Event()

    def sampled() -> Iterator[int]:
        yield 1
        never.wait(30)
        yield 2

    found = watched(sampled(), 2.0)
    assert next(found) == 1
    with pytest.raises(ContinualError, match=r"nothing for 2 s; .* raise `generate\.still_seconds`"):
        next(found)
    never.set()


def test_who_has_enough_lets_go_of_what_samples() -> None:
    closed, go_on = threading.Event(), threading.Event()

    def sampled() -> Iterator[int]:
        try:
            yield 1
            go_on.wait(30)
            yield from range(10**9)
        finally:
            closed.set()

    for number in watched(sampled(), 5.0):
        assert number == 1
        break
    go_on.set()
    assert closed.wait(10), "the generator is closed, and with it what it has started"
