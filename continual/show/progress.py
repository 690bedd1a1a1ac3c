"""The progress of a long step: one line with what is done, the rate and the remaining time, or how long it waits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REWRITE_SECONDS = 0.2
"""On a terminal, a step's line is rewritten at most this often."""
PLAIN_SECONDS = 10.0
"""Elsewhere a step prints a line at most this often, and one when it ends."""
TICK_SECONDS = 1.0
"""How often a step that reports nothing looks whether its line should count the seconds."""
STILL_SECONDS = 5.0
"""A step that has reported nothing for so long says for how long."""


class Step:
    """A long step of a run, as a context manager.

    `show(text, last)` displays its line; `rewrites` says whether that overwrites the previous one. `waits_for` says
    what happens before the step can report anything, such as `starting the engine`. While nothing is reported, a thread
    counts the seconds in the line. `running` lists the open steps.
    """

    def __init__(
        self,
        title: str,
        show: Callable[[str, bool], None],
        rewrites: bool,
        waits_for: str = "",
        running: "list[Step] | None" = None,
    ):
        self.title, self._show, self._rewrites, self._waits_for = title, show, rewrites, waits_for
        self._begun = time.monotonic()
        self._shown = self._begun - PLAIN_SECONDS if rewrites else self._begun
        self._reported = self._begun
        self._ended, self._lock = threading.Event(), threading.RLock()
        self._first: tuple[float, float] | None = None
        self._done: float = 0
        self._total: float | None = None
        self._extra = self._note = ""
        self._held_up: tuple[str, float] | None = None
        self._steps: list[Step] = [] if running is None else running
        self.thread = 0

    def __enter__(self) -> "Step":
        self.thread = threading.get_ident()
        self._steps.append(self)
        if self._rewrites:
            self._show(self.text(), False)
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._ended.set()
            self._steps.remove(self)
            self._show(self._end(kind), True)

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            self.count_seconds()

    def count_seconds(self) -> None:
        """Show the line again if nothing was reported for a while."""
        with self._lock:
            now = time.monotonic()
            if self._ended.is_set() or now - self._shown < (TICK_SECONDS if self._rewrites else PLAIN_SECONDS):
                return
            if self._held_up or self._first is None or now - self._reported >= STILL_SECONDS:
                self._shown = now
                self._show(self.text(), False)

    def update(self, done: float, total: float | None = None, extra: str = "") -> None:
        """Report `done` of `total` units (None: unknown), and `extra` text after them. Cheap enough for every unit."""
        with self._lock:
            now = time.monotonic()
            if self._first is None or done < self._first[1]:  # a resumed stage goes on from its checkpoint
                self._first = (now, done)
            if (done, total, extra) != (self._done, self._total, self._extra):
                self._reported = now
            self._done, self._total, self._extra = done, total, extra
            if now - self._shown >= (REWRITE_SECONDS if self._rewrites else PLAIN_SECONDS):
                self._shown = now
                self._show(self.text(), False)

    def waits(self, what: str) -> None:
        """Set what the line says before the first update."""
        self._waits_for = what

    def note(self, text: str) -> None:
        """Set what the step's last line says about its result."""
        self._note = text

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show instead of what is done that the step is held up by something else, and for how long."""
        with self._lock:
            self._held_up, self._shown = (what, time.monotonic()), time.monotonic()
            self._show(self.text(), False)
        try:
            yield
        finally:
            with self._lock:
                self._held_up, self._reported = None, time.monotonic()

    def text(self) -> str:
        """Return the line of the running step."""
        now = time.monotonic()
        if self._held_up:
            what, since = self._held_up
            return f"{self.title}: {what} ..." + (f" {duration(now - since)}" if now - since >= TICK_SECONDS else "")
        if self._first is None:
            waited = f" {duration(now - self._begun)}" if now - self._begun >= TICK_SECONDS else ""
            return f"{self.title}: {self._waits_for} ...{waited}" if self._waits_for else f"{self.title} ...{waited}"
        parts = [self._counts()]
        extra = [self._extra] if self._extra else []
        if self._total is None and extra:
            parts, extra = [f"{parts[0]} {self._extra}"], []
        rate = self._rate()
        if rate:
            parts.append(f"{_short(rate)}/s")
            if self._total and self._total > self._done:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        if now - self._reported >= STILL_SECONDS:
            extra.append(f"nothing new for {duration(now - self._reported)}")
        return f"{self.title}: {', '.join([*parts, *extra])}"

    def _counts(self) -> str:
        if not self._total:
            return f"{self._done:,.0f}"
        return f"{self._done:,.0f} of {self._total:,.0f} ({100 * self._done / self._total:.0f} %)"

    def _rate(self) -> float | None:
        """Return units per second since the first update, so that units of an earlier start do not count."""
        if self._first is None or time.monotonic() - self._first[0] < REWRITE_SECONDS:
            return None
        return (self._done - self._first[1]) / (time.monotonic() - self._first[0])

    def _end(self, kind: type[BaseException] | None) -> str:
        took = duration(time.monotonic() - self._begun)
        if kind is not None:
            word = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
            place = f" at {self._counts()}" if self._first is not None else ""
            return f"{self.title}: {word}{place} after {took}"
        rate = self._rate()
        between = " " if self._total is None else ", "
        counted = between.join(filter(None, [f"{self._done:,.0f}", self._extra])) if self._first else ""
        parts = list(filter(None, [self._note or counted]))
        parts += [f"{took}, {_short(rate)}/s" if rate else took]
        return f"{self.title}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Return a time span for reading: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
