"""The line of a running step: how often it is shown, what it says, how it ends."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from continual.show import progress
from continual.show.progress import duration
from continual.show.terminal import Terminal
from continual.store import notices
from tests.conftest import ROOT


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_plain_lines_come_every_ten_seconds_and_at_the_end(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal, terminal.step("train") as step:
        for done in range(0, 251):
            step.update(100 + done, 600, "loss 1.0")
            clock.now += 0.1
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "train: 200 of 600 (33 %), 10/s, 40 s left, loss 1.0"
    assert lines[2] == "train: 350, loss 1.0, 25 s, 10/s"


def test_a_line_is_rewritten_five_times_a_second_at_most(tmp_path: Path, clock: Clock) -> None:
    screen = Screen()
    with Terminal(tmp_path / "log.txt", screen) as terminal, terminal.step("train") as step:
        for done in range(100):
            step.update(done, 100)
            clock.now += 0.02
    assert 9 <= screen.getvalue().count("\r") <= 13
    assert screen.getvalue().count("\n") == 1


def test_other_lines_are_printed_above_the_running_step(tmp_path: Path, clock: Clock) -> None:
    screen = Screen()
    with Terminal(tmp_path / "log.txt", screen) as terminal, terminal.step("train") as step:
        step.update(1, 2)
        terminal.line("by the way")
        step.note("done well")
    rows = [row.rsplit("\x1b[K", 1)[-1].rsplit("\r", 1)[-1] for row in screen.getvalue().split("\n")]
    assert rows == ["by the way", "train: done well, 0.0 s", ""]


@pytest.mark.parametrize(("error", "word"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")])
def test_how_a_step_ended_badly(tmp_path: Path, clock: Clock, error: type[BaseException], word: str) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal, pytest.raises(error), terminal.step("train") as step:
        step.update(3, 12)
        clock.now += 200
        raise error
    assert stream.getvalue() == f"train: {word} at 3 of 12 (25 %) after 3 min 20 s\n"


def test_counts_without_a_total(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal:
        with terminal.step("read") as step:
            step.update(0, None, "documents")
            clock.now += 20
            step.update(4000, None, "documents")
        with terminal.step("nothing"):
            pass
    assert stream.getvalue().splitlines() == [
        "read: 4,000 documents, 200/s", "read: 4,000 documents, 20 s, 200/s", "nothing: 0.0 s",
    ]  # fmt: skip


def test_a_resumed_stage_counts_from_its_checkpoint(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal, terminal.step("train") as step:
        for done in (51, 48, 58):
            step.update(done, 60)
            clock.now += 10
        assert step.text() == "train: 58 of 60 (97 %), 0.5/s, 4.0 s left, nothing new for 10 s"


def test_durations() -> None:
    spans = {0.04: "0.0 s", 9.94: "9.9 s", 9.96: "10 s", 59.4: "59 s", 59.6: "1 min 0 s", 3700: "1 h 1 min"}
    assert {seconds: duration(seconds) for seconds in spans} == spans


def test_a_step_that_waits_says_for_what_and_counts_the_seconds(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal, terminal.step("sample 28", "starting the engine") as step:
        for second in range(31):
            clock.now += 1
            if second == 25:
                step.waits("loading the model")
            step.count_seconds()
        step.update(4, 28)
        for _ in range(12):
            clock.now += 1
            step.count_seconds()
    assert stream.getvalue().splitlines() == [
        "sample 28: starting the engine ... 10 s",
        "sample 28: starting the engine ... 20 s",
        "sample 28: loading the model ... 30 s",
        "sample 28: 4 of 28 (14 %), nothing new for 9.0 s",
        "sample 28: 4, 43 s",
    ]


def test_on_a_terminal_every_second_of_a_wait_is_counted(tmp_path: Path, clock: Clock) -> None:
    screen = Screen()
    with Terminal(tmp_path / "log.txt", screen) as terminal, terminal.step("evaluate") as step:
        for _ in range(3):
            clock.now += 1
            step.count_seconds()
    shown = [part.removeprefix("\x1b[K") for part in screen.getvalue().split("\r")]
    assert shown == ["", "evaluate ...", "evaluate ... 1.0 s", "evaluate ... 2.0 s", "evaluate ... 3.0 s",
                     "evaluate: 3.0 s\n"]  # fmt: skip


def test_a_waiting_step_counts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.05)
    screen = Screen()
    with Terminal(tmp_path / "log.txt", screen) as terminal, terminal.step("train", "starting the workers"):
        until = progress.time.monotonic() + 10
        while "starting the workers ... 0." not in screen.getvalue() and progress.time.monotonic() < until:
            progress.time.sleep(0.01)
    assert "starting the workers ... 0." in screen.getvalue()
    ended = screen.getvalue()
    progress.time.sleep(0.2)
    assert screen.getvalue() == ended


def test_a_steps_line_uses_the_terminals_own_width(tmp_path: Path) -> None:
    script = (
        "from continual.show.terminal import Terminal\n"
        f"with Terminal({str(tmp_path / 'log.txt')!r}) as terminal, terminal.step('x' * 100) as step:\n"
        "    step.update(1, 2)\n"
    )
    seen = {}
    for columns in (90, 130):
        main, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        subprocess.run([sys.executable, "-c", script], stdout=end, check=True, cwd=ROOT, env=environment)
        os.close(end)
        seen[columns] = os.read(main, 10000).decode()
        os.close(main)
    assert "x" * 100 + ": 1 of 2 (50 %)" in seen[130]
    assert "x" * 88 + "…" in seen[90]


def test_a_step_that_is_held_up_says_by_what(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal, terminal.step("evaluate", "scoring") as step:
        clock.now += 1
        with notices.waiting("another process works on this evaluation; waiting for it (process 7)"):
            for _ in range(11):
                clock.now += 1
                step.count_seconds()
        step.update(1, 2)
        clock.now += 10
        step.update(2, 2)
        notices.say("`rows` made again")
    held = "evaluate: another process works on this evaluation; waiting for it (process 7) ..."
    assert stream.getvalue().splitlines() == [
        held, f"{held} 10 s", "evaluate: 2 of 2 (100 %), 0.1/s", "`rows` made again", "evaluate: 2, 22 s, 0.1/s"
    ]  # fmt: skip


def test_a_wait_outside_of_a_step_has_lines_of_its_own(tmp_path: Path) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "log.txt", stream) as terminal:

        def wait() -> None:
            with notices.waiting("waiting for the database"):
                pass

        with terminal.step("train", "starting"):
            tracker = threading.Thread(target=wait)
            tracker.start()
            tracker.join()
        wait()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["waiting for the database ...", "waiting for the database: 0.0 s"]
    assert lines[2].startswith("train: ")
    assert lines[3:] == ["waiting for the database ...", "waiting for the database: 0.0 s"]
