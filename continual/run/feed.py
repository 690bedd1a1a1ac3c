"""Sampling and scoring that go on while a stage trains on the rows that are there."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from continual.errors import Interrupted
from continual.sampling.sample import Made, Progress
from continual.show.progress import Step
from continual.store import Artefact

LOOK_SECONDS = 0.2

Work = Callable[[threading.Event], Any]
"""Makes an artefact: `work(stop)` returns when it is complete."""
F = TypeVar("F", bound="Feed")


class Feed(ABC):
    """An artefact that a thread of the driver fills, from `begin` on.

    `rest` is the title of the wait for its end, and `waits_for` what that line says at first; `busy` is why another
    feed of its kind waits.
    """

    rest: ClassVar[str]
    waits_for: ClassVar[str]
    busy: ClassVar[str]

    def __init__(self, artefact: Artefact, work: Work):
        self.artefact, self._work = artefact, work
        self.error: BaseException | None = None
        self._stop, self._ended = threading.Event(), threading.Event()

    @abstractmethod
    def usable(self) -> bool:
        """Return whether the stage can go on with what is there."""

    @abstractmethod
    def so_far(self) -> str:
        """Return how far the work is, in words."""

    @abstractmethod
    def show(self, step: Step) -> None:
        """Show how far the work is in the line of a step."""

    def begin(self) -> None:
        """Start the work."""
        threading.Thread(target=self._run, name="feed", daemon=True).start()

    def wait_until_usable(self, step: Step) -> None:
        """Return when the stage can go on with what is there, or raise what the work has raised."""
        # What an earlier start has left there of its failure would end whoever reads.
        while not self._ended.wait(LOOK_SECONDS) and (self.artefact.failure() or not self.usable()):
            self.show(step)
        if self.error:
            raise self.error

    def wait(self, step: Step | None = None) -> None:
        """Return when the artefact is complete, or raise what the work has raised; `step` shows how far it is."""
        while not self._ended.wait(LOOK_SECONDS):
            if step:
                self.show(step)
        if self.error:
            raise self.error

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return self._ended.is_set() and self.error is None

    def ask_to_stop(self) -> None:
        """Tell the work to end, if it has not ended."""
        self._stop.set()

    def stop(self) -> None:
        """End the work, if it has not ended."""
        self._stop.set()
        self._ended.wait()

    def _run(self) -> None:
        try:
            self._work(self._stop)
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()


class SampleFeed(Feed):
    """Rows that are filled with samples. They are usable with their first shard, which has those held out."""

    rest, waits_for = "sample the rest", "waiting for the last samples"
    busy = "the set before is sampled first"

    def __init__(self, rows: Artefact, samples: Artefact, work: Callable[[Progress, threading.Event], Any]):
        super().__init__(rows, lambda stop: work(self._count, stop))
        self.samples = samples
        self.made = Made(0, 0, 0)

    def usable(self) -> bool:
        return self.artefact.shard_facts(0) is not None

    def so_far(self) -> str:
        if not self.made.wanted:
            return "the engine starts"
        return f"sampled {self.made.done:,} of ~{self.made.wanted:,}{', paused' * self.made.paused}"

    def show(self, step: Step) -> None:
        if self.made.tokens:
            step.update(self.made.done, self.made.wanted, f"{self.made.tokens} tokens")

    def _count(self, made: Made) -> None:
        self.made = made


class ScoreFeed(Feed):
    """Columns of rows that may still come. They are usable at once: the training waits for their shards."""

    rest, waits_for = "score the rest", "waiting for the last scores"
    busy = "the rows before are scored first"

    def __init__(self, columns: Artefact, rows: Artefact, work: Work):
        super().__init__(columns, work)
        self.rows = rows

    def usable(self) -> bool:
        return True

    def so_far(self) -> str:
        scored, there = self._rows()
        return f"scored {scored:,} of {there:,} rows" if scored else "the teacher loads"

    def show(self, step: Step) -> None:
        scored, there = self._rows()
        if scored:
            step.update(scored, there, "rows")

    def _rows(self) -> tuple[int, int]:
        """Return how many rows are scored, and how many are there."""
        scored, there = (sum(facts["rows"] for facts in made.shards()) for made in (self.artefact, self.rows))
        return scored, there


class Feeds(AbstractContextManager["Feeds"]):
    """The feeds of a stage; the block's end stops those that still run."""

    def __init__(self) -> None:
        self.all: list[Feed] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # All at first: one that reads what another one makes would take its end for a failure.
        for feed in self.all:
            feed.ask_to_stop()
        for feed in self.all:
            feed.stop()
        # What ended a feed is why the workers' data did not come.
        failed = next((feed.error for feed in self.all if feed.error and not isinstance(feed.error, Interrupted)), None)
        if failed and error and not isinstance(error, KeyboardInterrupt):
            raise failed from error

    def __enter__(self) -> Self:
        return self

    def start(self, feed: F, step: Step) -> F:
        """Start a feed when the others of its kind are complete (see `wait_for_kind`), and return it."""
        self.wait_for_kind(type(feed), step)
        self.all.append(feed)
        feed.begin()
        return feed

    def wait_for_kind(self, kind: type[Feed], step: Step) -> None:
        """Return when the feeds of a kind are complete, or raise what their work has raised.

        The resources beside the training are those of one set's engines and of one scorer; a second set of engines
        could wait for one that pauses for the training, which waits for both. A scorer pauses for nothing but rows.
        """
        self._wait([feed for feed in self.all if type(feed) is kind], kind.busy, step)

    def wait_for_rows(self, rows: Artefact, step: Step) -> None:
        """Return when no feed fills rows any longer, or raise what its work has raised."""
        self._wait([feed for feed in self.all if feed.artefact == rows], "all rows are sampled first", step)

    def _wait(self, feeds: list[Feed], why: str, step: Step) -> None:
        running = [feed for feed in feeds if not feed.complete]
        with step.waiting(why) if running else nullcontext():
            for feed in running:
                feed.wait()

    def progress(self) -> str:
        """Return what the line of the training says of the feeds that still run, "" if none does."""
        return "".join(f", {feed.so_far()}" for feed in self.all if not feed.complete)
