"""Sampling that goes on while a stage trains on the rows that are there."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self

from continual.errors import Interrupted
from continual.sampling.sample import Made, Progress
from continual.show.progress import Step
from continual.store import Artefact

LOOK_SECONDS = 0.2


class Feed:
    """Rows that a thread of the driver fills with samples. `work(progress, stop)` returns when they are complete."""

    def __init__(self, rows: Artefact, samples: Artefact, work: Callable[[Progress, threading.Event], object]):
        self.rows, self.samples, self._work = rows, samples, work
        self.error: BaseException | None = None
        self.made = Made(0, 0, 0)
        self._stop, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="feed", daemon=True).start()

    def wait_for_first(self, step: Step) -> None:
        """Return when the first shard of rows is there, which has those held out, or raise what the work has raised."""
        while not self._ended.wait(LOOK_SECONDS) and self.rows.shard_facts(0) is None:
            if self.made.tokens:
                self._show(step)
        if self.error:
            raise self.error

    def wait(self, step: Step | None = None) -> None:
        """Return when the rows are complete, or raise what the work has raised; `step` shows how far it is."""
        while not self._ended.wait(LOOK_SECONDS):
            if step:
                self._show(step)
        if self.error:
            raise self.error

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self._ended.is_set() and self.error is None

    def so_far(self) -> str:
        """Return how far the work is, in words."""
        if not self.made.wanted:
            return "the engine starts"
        return f"sampled {self.made.done:,} of ~{self.made.wanted:,}{', paused' * self.made.paused}"

    def stop(self) -> None:
        """End the work, if it has not ended."""
        self._stop.set()
        self._ended.wait()

    def _run(self) -> None:
        try:
            self._work(self._count, self._stop)
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()

    def _show(self, step: Step) -> None:
        step.update(self.made.done, self.made.wanted, f"{self.made.tokens} tokens")

    def _count(self, made: Made) -> None:
        self.made = made


class Feeds(AbstractContextManager["Feeds"]):
    """The feeds of a stage; the block's end stops those that still run."""

    def __init__(self) -> None:
        self.all: list[Feed] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for feed in self.all:
            feed.stop()
        # What ended a feed is why the workers' data did not come.
        failed = next((feed.error for feed in self.all if feed.error and not isinstance(feed.error, Interrupted)), None)
        if failed and error and not isinstance(error, KeyboardInterrupt):
            raise failed from error

    def __enter__(self) -> Self:
        return self

    def start(
        self, rows: Artefact, samples: Artefact, work: Callable[[Progress, threading.Event], object], step: Step
    ) -> Feed:
        """Start a feed when the others are complete: the resources are those of one set's engines.

        A second set of engines could wait for one that pauses for the training, which waits for both.
        """
        with step.waiting("the set before is sampled first") if self.all else nullcontext():
            for feed in self.all:
                feed.wait()
        started = Feed(rows, samples, work)
        self.all.append(started)
        return started

    def progress(self) -> str:
        """Return what the line of the training says of the feeds that still run, "" if none does."""
        return "".join(f", {feed.so_far()}" for feed in self.all if not feed.complete)
