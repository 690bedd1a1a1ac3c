"""What an engine samples is passed on; that it samples nothing any more, or why it ended, is raised."""

import threading
from collections.abc import Iterator

import pytest

from continual.errors import ContinualError
from continual.sampling.watchdog import watched


def test_everything_comes_in_order() -> None:
    assert list(watched(range(1000), 5.0)) == list(range(1000))
    assert list(watched([], 5.0)) == []


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

    found = watched(sampled(), 0.2)
    assert next(found) == 1
    with pytest.raises(ContinualError, match=r"nothing for 0\.2 s; .* raise `generate\.still_seconds`"):
        next(found)
    never.set()
