"""The user's terminal during a run: our lines go to the screen and to the run's log, everything else to the log alone.

"Everything else" is the output of Ray and vLLM, and of all their processes.
"""

import contextlib
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from continual.errors import Interrupted, describe
from continual.errors.secrets import RedactedStream, redacted
from continual.show.progress import Step
from continual.store import notices

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def _empty(stream: TextIO, number: int) -> None:
    """Write what a stream holds back into the log, or nowhere if its disk is full: the terminal must not get it."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        stream.flush()


class Terminal:
    """`with Terminal(folder / "log.txt") as terminal:` reserves the user's terminal for our lines.

    Inside the block, file descriptors 1 and 2 point to the log, for this process and all that it starts; our lines go
    to a duplicate of the old descriptor 1 that no child inherits, and to the log as well. With `stream` nothing is
    redirected and our lines go there.
    """

    def __init__(self, log_path: str | Path, stream: TextIO | None = None):
        self.log_path = Path(log_path)
        self._given = stream
        self._out: TextIO = stream or sys.stdout
        self._log: TextIO | None = None
        self._kept: list[tuple[int, int]] = []
        self._streams: tuple[TextIO, TextIO] | None = None
        self._lock = threading.RLock()
        self._running: str | None = None
        self._steps: list[Step] = []
        self._heard = contextlib.ExitStack()

    def __enter__(self) -> "Terminal":
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("a", encoding="utf-8", errors="replace")
        if self._given is None:
            sys.stdout.flush()
            sys.stderr.flush()
            self._kept = [(number, os.dup(number)) for number in (1, 2)]
            for number, _ in self._kept:
                os.dup2(self._log.fileno(), number)
            self._out = os.fdopen(os.dup(self._kept[0][1]), "w", encoding="utf-8", errors="replace")
            # What Ray forwards from its processes and what libraries log reaches the file through these.
            self._streams = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = (cast(TextIO, RedactedStream(stream)) for stream in self._streams)
        self._heard.enter_context(notices.heard_by(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._heard.close()
        if self._given is None:
            for stream, (number, _) in zip((sys.stdout, sys.stderr), self._kept, strict=True):
                _empty(stream, number)
            if self._streams:
                sys.stdout, sys.stderr = self._streams
            for number, kept in self._kept:
                os.dup2(kept, number)
                os.close(kept)
            self._kept = []
            self._out.close()
            self._out = sys.stdout
        if self._log:
            with contextlib.suppress(OSError):  # a full disk must not hide the error that ended the run
                self._log.close()
            self._log = None

    @contextlib.contextmanager
    def last_word(self) -> Iterator[None]:
        """Write the sentence with which the block ends to the log; the terminal gets it from whoever catches it."""
        try:
            yield
        except KeyboardInterrupt:
            self._to_log(str(Interrupted()))
            raise
        except Exception as error:
            self._to_log(f"error: {describe(error)}")
            raise

    @property
    def rewrites(self) -> bool:
        """Whether a line can be overwritten: true on a terminal, false in a file, a pipe or a job's log."""
        return self._out.isatty()

    @property
    def colors(self) -> bool:
        """Whether lines may be colored; the log never is."""
        return colors(self._out)

    def line(self, text: str) -> None:
        """Print one or more lines; the line of a running step stays below them."""
        text = redacted(text)
        with self._lock:
            if self._running is not None:
                self._write("\r\x1b[K")
            self._write(f"{text}\n")
            self._to_log(text)
            if self._running is not None:
                self._write(self._running)

    def step(self, title: str, waits_for: str = "") -> Step:
        """Return the display of a long step: `with terminal.step("train") as step: step.update(done, total, extra)`.

        `waits_for` says what happens before the first update, such as `starting the engine`.
        """
        return Step(title, self.show, self.rewrites, waits_for, self._steps)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show in the line of the running step of this thread, or in lines of their own, what is waited for."""
        mine = [step for step in list(self._steps) if step.thread == threading.get_ident()]
        aside = Step(what, lambda text, last: self.line(text), rewrites=False)
        if not mine:
            self.line(f"{what} ...")
        with mine[-1].waiting(what) if mine else aside:
            yield

    def show(self, text: str, last: bool) -> None:
        """Show the line of a step, over its previous one where possible; `last` ends it."""
        text = redacted(text)
        with self._lock:
            if self.rewrites:
                width = self._columns()
                shown = text if last or len(text) < width else text[: width - 2] + "…"
                self._running = None if last else shown
                self._write(f"\r\x1b[K{shown}" + "\n" * last)
            else:
                self._write(f"{text}\n")
            if last or not self.rewrites:
                self._to_log(text)

    def _columns(self) -> int:
        """Return the width of the user's terminal; descriptor 1, which Python would ask, is the log by now."""
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except OSError:
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            pass  # a closed terminal must not end a run: the log has every line

    def _to_log(self, text: str) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # nor a line that the disk has no room for
                self._log.write(f"[continual {time.strftime('%H:%M:%S')}] {ESCAPES.sub('', text)}\n")
                self._log.flush()


def colors(stream: TextIO) -> bool:
    """Return whether to color: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")
