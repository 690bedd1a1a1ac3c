"""What a user sees while a run goes: a line per long step, and at the end the matrix and what to type next.

Ray's and vLLM's own output, and that of all their processes, goes to the run's log file.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from math import hypot
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

REWRITE_SECONDS = 0.2
"""On a terminal a step's line is rewritten at most this often."""
PLAIN_SECONDS = 10.0
"""Elsewhere a step prints a line at most this often, and one when it ends."""
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
FIGURES = (
    ("average_score", "average score"),
    ("forgetting", "forgetting"),
    ("forgetting_old", "forgetting, old"),
    ("backward_transfer", "backward transfer"),
    ("forward_transfer", "forward transfer"),
    ("learning_accuracy", "learning accuracy"),
)
TOKENS = (
    ("generated_tokens", "sampled"),
    ("reused_tokens", "reused"),
    ("trained_tokens", "trained on"),
)
SURE = 2.0
"""Standard errors by which a score must have fallen to be marked."""
RED, PLAIN = "\x1b[31m", "\x1b[0m"


class Terminal:
    """`with Terminal(folder / "log.txt") as terminal:` keeps the user's terminal for our lines.

    File descriptors 1 and 2 point to the log inside the block, for this process and all that it starts; our lines go to
    a duplicate of the old descriptor 1 that no child inherits, and into the log as well. With `stream` nothing is
    redirected and lines go there.
    """

    def __init__(self, log_path: str | Path, stream: TextIO | None = None):
        self.log_path = Path(log_path)
        self._given = stream
        self._out: TextIO = stream or sys.stdout
        self._log: TextIO | None = None
        self._kept: list[tuple[int, int]] = []
        self._lock = threading.RLock()
        self._step: Step | None = None

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._given is None:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, kept in self._kept:
                os.dup2(kept, number)
                os.close(kept)
            self._kept = []
            self._out.close()
            self._out = sys.stdout
        if self._log:
            self._log.close()
            self._log = None

    @property
    def rewrites(self) -> bool:
        """Whether a line can be written over: on a terminal, not in a file, a pipe or a job's log."""
        return self._out.isatty()

    @property
    def colours(self) -> bool:
        """Whether lines may be coloured; the log never is."""
        return colours(self._out)

    def line(self, text: str) -> None:
        """One line, or several; a step's line that is being rewritten stays below."""
        with self._lock:
            if self.rewrites and self._step is not None:
                self._write("\r\x1b[K")
            self._write(f"{text}\n")
            self._to_log(text)
            if self.rewrites and self._step is not None:
                self._write(self._step.text())

    def step(self, title: str) -> "Step":
        """A long step: `with terminal.step("train") as step: step.update(done, total, extra)`."""
        return Step(self, title)

    def show(self, text: str, last: bool) -> None:
        """A step's line: written over where possible, else printed; `last` ends it."""
        with self._lock:
            if self.rewrites:
                width = shutil.get_terminal_size().columns
                self._write(f"\r\x1b[K{text if last or len(text) < width else text[: width - 2] + '…'}")
                if last:
                    self._write("\n")
            else:
                self._write(f"{text}\n")
            if last or not self.rewrites:
                self._to_log(text)

    def current(self, step: "Step | None") -> None:
        """The step whose line is being rewritten."""
        with self._lock:
            self._step = step

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            pass  # a terminal that was closed ends no run: the log has every line

    def _to_log(self, text: str) -> None:
        if self._log is not None:
            self._log.write(f"[continual {time.strftime('%H:%M:%S')}] {ESCAPES.sub('', text)}\n")
            self._log.flush()


class Step:
    """A long step of a run: one line with what is done, the rate and the remaining time."""

    def __init__(self, terminal: Terminal, title: str):
        self.terminal, self.title = terminal, title
        self._begun = time.monotonic()
        self._shown = self._begun - PLAIN_SECONDS if terminal.rewrites else self._begun
        self._first: tuple[float, float] | None = None
        self._done: float = 0
        self._total: float | None = None
        self._extra = self._note = ""

    def __enter__(self) -> "Step":
        self.terminal.current(self)
        if self.terminal.rewrites:
            self.terminal.show(self.text(), last=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminal.current(None)
        self.terminal.show(self._end(kind), last=True)

    def update(self, done: float, total: float | None = None, extra: str = "") -> None:
        """`done` of `total` (None: not known) units; `extra` stands behind. Cheap: call it as often as you like."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        self._done, self._total, self._extra = done, total, extra
        if now - self._shown >= (REWRITE_SECONDS if self.terminal.rewrites else PLAIN_SECONDS):
            self._shown = now
            self.terminal.show(self.text(), last=False)

    def note(self, text: str) -> None:
        """What the step's last line says of its result."""
        self._note = text

    def text(self) -> str:
        """The line while the step goes on."""
        if self._first is None:
            return f"{self.title} ..."
        parts = [self._counts()]
        extra = [self._extra] if self._extra else []
        if self._total is None and extra:
            parts, extra = [f"{parts[0]} {self._extra}"], []
        rate = self._rate()
        if rate:
            parts.append(f"{_short(rate)}/s")
            if self._total and self._total > self._done:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        return f"{self.title}: {', '.join([*parts, *extra])}"

    def _counts(self) -> str:
        if not self._total:
            return f"{self._done:,.0f}"
        return f"{self._done:,.0f} of {self._total:,.0f} ({100 * self._done / self._total:.0f} %)"

    def _rate(self) -> float | None:
        """Units per second since the first update: what a resumed step finds done does not count."""
        if self._first is None or time.monotonic() - self._first[0] < REWRITE_SECONDS:
            return None
        return (self._done - self._first[1]) / (time.monotonic() - self._first[0])

    def _end(self, kind: type[BaseException] | None) -> str:
        took = duration(time.monotonic() - self._begun)
        if kind is not None:
            word = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
            at = f" at {self._counts()}" if self._first is not None else ""
            return f"{self.title}: {word}{at} after {took}"
        rate = self._rate()
        between = " " if self._total is None else ", "
        counted = between.join(filter(None, [f"{self._done:,.0f}", self._extra])) if self._first else ""
        parts = list(filter(None, [self._note or counted]))
        parts += [f"{took}, {_short(rate)}/s" if rate else took]
        return f"{self.title}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """A time span for reading: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
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


def closing(summary: dict[str, Any], folder: Path, colour: bool = False) -> str:
    """The end of a run: the matrix, the figures, where things are, and what to type next."""
    lines = [f"{summary['name']}: {summary['status']}", ""]
    if summary["tasks"]:
        lines += [matrix_table(summary["matrix"], summary["tasks"], colour), ""]
    lines += figures_lines(summary)
    lines += [f"  {'summary':<18} {folder / 'summary.json'}"]
    models = list(summary.get("checkpoints", {}).values())
    lines += [f"  {'model':<18} {models[-1]}"] if models else []
    lines += ["", "next:"]
    if uri := _tracking_uri(folder):
        lines.append(f"  mlflow ui --backend-store-uri {uri}    compare runs in a browser")
    return "\n".join([*lines, f"  less {folder / 'log.txt'}    read what Ray and vLLM had to say"])


def _tracking_uri(folder: Path) -> str | None:
    """The tracker of a run folder: as its configuration says, else the storage's own file; None if it is off."""
    from continual.config.yaml_text import read_yaml

    config = folder / "config.yaml"
    track = read_yaml(config, str(config)).get("track", {}) if config.is_file() else {}
    if not track.get("enabled", True):
        return None
    return track.get("uri") or f"sqlite:///{folder.parent / 'mlflow.db'}"


def colours(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def matrix_table(matrix: Sequence[dict[str, Any]], tasks: Sequence[str], colour: bool = False) -> str:
    """Rows are stages, columns tasks; a cell is the score with its standard error.

    `↓` (red, with `colour`) marks a score that is surely below the task's best so far.
    """
    rows = [["stage", *tasks]]
    marked = set()
    for at, entry in enumerate(matrix):
        row = [f"{entry['stage']} {entry['name']}"]
        for column, task in enumerate(tasks, 1):
            row.append(_cell(entry["scores"].get(task)))
            if _fell(matrix, at, task):
                row[-1] += " ↓"
                marked.add((at + 1, column))
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(tasks) + 1)]
    lines = []
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        if colour:
            cells = [f"{RED}{c}{PLAIN}" if (number, at) in marked else c for at, c in enumerate(cells)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def _cell(score: dict[str, Any] | None) -> str:
    if not score or score.get("score") is None:
        return "-"
    error = f" ±{score['stderr']:.3f}" if score.get("stderr") is not None else ""
    return f"{score['score']:.3f}{error}"


def _fell(matrix: Sequence[dict[str, Any]], at: int, task: str) -> bool:
    """Whether the score at row `at` is below the best before it by more than SURE standard errors of the difference."""
    now = matrix[at]["scores"].get(task)
    before = [entry["scores"][task] for entry in matrix[:at] if entry["scores"].get(task)]
    if not now or not before:
        return False
    best = max(before, key=lambda score: score["score"])
    return best["score"] - now["score"] > SURE * hypot(now.get("stderr") or 0.0, best.get("stderr") or 0.0)


def figures_lines(summary: dict[str, Any]) -> list[str]:
    """The figures of a summary, one a line, and what they cost."""
    tokens = [f"{summary[key]:,} {word}" for key, word in TOKENS if summary.get(key) is not None]
    seconds = [f"{name} {value:.0f} s" for name, value in (summary.get("seconds") or {}).items()]
    costs = [f"  {title:<18} {', '.join(parts)}" for title, parts in (("tokens", tokens), ("time", seconds)) if parts]
    return score_lines(summary) + costs


def score_lines(summary: dict[str, Any]) -> list[str]:
    """The figures of a summary, one a line; `-` where there is nothing to average."""
    errors = summary.get("stderr") or {}
    lines = []
    for key, title in FIGURES:
        value, error = summary.get(key), errors.get(key)
        text = "-" if value is None else f"{value:.3f}" + (f" ±{error:.3f}" if error is not None else "")
        lines.append(f"  {title:<18} {text}")
    return lines


def side_by_side(left: dict[str, Any], right: dict[str, Any], titles: tuple[str, str]) -> str:
    """Two summaries beside each other, in a terminal's width: matrices, then figures."""
    columns = []
    for summary, title in ((left, titles[0]), (right, titles[1])):
        table = matrix_table(summary["matrix"], summary["tasks"]).splitlines()
        columns.append([f"  {title}", "", *table, "", *score_lines(summary)])
    height = max(len(column) for column in columns)
    padded = [column + [""] * (height - len(column)) for column in columns]
    width = max(len(line) for line in padded[0]) + 4
    return "\n".join(f"{one:<{width}}{other}".rstrip() for one, other in zip(*padded, strict=True))
