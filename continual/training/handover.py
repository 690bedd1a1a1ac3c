"""How the driver hands one stage after another to the workers: an actor beside the driver, which both ask."""

from typing import NamedTuple


class Handed(NamedTuple):
    """A stage's job, pickled (its methods may import what this actor has no use for), and its number, from 0."""

    number: int
    job: bytes


class Handover:
    """Holds the one job that is open. `ray.remote(Handover)` makes it an actor; it waits without a thread."""

    def __init__(self, workers: int):
        import asyncio  # here, since a driver that only shows a finished run never makes this actor

        self._workers = workers
        self._number = -1
        self._job: bytes | None = None
        self._closed = False
        self._done: set[int] = set()
        self._restarts = -1
        self._changed = asyncio.Condition()

    async def give(self, job: bytes) -> int:
        """Open a job for the workers; return its number."""
        async with self._changed:
            self._number, self._job = self._number + 1, job
            self._done.clear()
            self._restarts = min(self._restarts, 0)
            self._changed.notify_all()
        return self._number

    async def take(self, rank: int, done: int) -> Handed | None:
        """Return the job to train next, as soon as there is one; None when there will be no other.

        Args:
            rank: The worker that asks.
            done: Number of the job that it has finished, -1 if it has just started: a job that is still open is then
                trained from its newest checkpoint.
        """
        async with self._changed:
            if done < 0:
                self._done.discard(rank)
                self._restarts += rank == 0
            elif done == self._number:
                self._done.add(rank)
                if len(self._done) == self._workers:
                    self._job = None
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._closed or (self._job is not None and self._number > done))
            return Handed(self._number, self._job) if self._job is not None and self._number > done else None

    async def finished(self, number: int) -> bool:
        """Return True when all workers have finished the job `number`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._number > number or self._job is None)
        return True

    async def restarts(self) -> int:
        """Return how often the workers have started again since the open job was given."""
        return max(0, self._restarts)

    async def close(self) -> None:
        """Let the workers end when the open job is finished."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
