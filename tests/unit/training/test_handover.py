"""The driver hands one stage after another to the workers; what was given is trained once, whoever asks and when."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from continual.training.handover import Handover

SHORT = 0.05


def with_handover(test: Callable[[Handover], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(test(Handover(workers=2)), 20)

    asyncio.run(run())


async def waits(call: Any) -> asyncio.Task[Any]:
    """Return the call as a task, which must not have ended by itself for a while."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(SHORT)
    assert not task.done()
    return task


def test_jobs_in_their_order_to_all_workers() -> None:
    async def test(handover: Handover) -> None:
        early = await waits(handover.take(0, -1))
        assert await handover.give(b"one") == 0
        assert await early == (0, b"one")
        assert await handover.take(1, -1) == (0, b"one")
        finished = await waits(handover.finished(0))
        first = await waits(handover.take(0, 0))
        assert not finished.done(), "one of two workers has done it"
        second = await waits(handover.take(1, 0))
        assert await finished
        assert await handover.give(b"two") == 1
        assert await first == await second == (1, b"two")

    with_handover(test)


def test_a_closed_group_does_what_was_given_and_ends() -> None:
    async def test(handover: Handover) -> None:
        await handover.give(b"one")
        await handover.close()
        for rank in (0, 1):
            assert await handover.take(rank, -1) == (0, b"one")
        assert await handover.take(0, 0) is None
        assert await handover.take(1, 0) is None
        assert await handover.finished(0)

    with_handover(test)


def test_workers_that_wait_end_when_it_is_closed() -> None:
    async def test(handover: Handover) -> None:
        waiting = [await waits(handover.take(rank, -1)) for rank in (0, 1)]
        await handover.close()
        assert await asyncio.gather(*waiting) == [None, None]

    with_handover(test)


@pytest.mark.parametrize("asked", [(), (0,), (0, 1)], ids=["before", "one waits", "all wait"])
def test_a_restart(asked: tuple[int, ...]) -> None:
    """A job that all have finished is not given again, even if the workers then end; any other is."""

    async def test(handover: Handover) -> None:
        await handover.give(b"one")
        for rank in (0, 1):
            await handover.take(rank, -1)
        for rank in asked:
            (await waits(handover.take(rank, 0))).cancel()
        again = asyncio.ensure_future(handover.take(0, -1))
        await asyncio.sleep(SHORT)
        if len(asked) == 2:
            assert not again.done()
            await handover.give(b"two")
            assert await again == (1, b"two")
            assert await handover.restarts() == 0, "it was before this job"
        else:
            assert await again == (0, b"one")
            assert await handover.restarts() == 1
            unfinished = await waits(handover.finished(0))
            assert await handover.take(1, -1) == (0, b"one")
            assert await handover.restarts() == 1, "all workers start again together"
            unfinished.cancel()

    with_handover(test)
