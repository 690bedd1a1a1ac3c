"""The terminal: our lines for the user, everybody's noise in the log; tables and figures."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from continual.show import terminal as module
from continual.show.terminal import Terminal, closing, duration, figures_lines, matrix_table, side_by_side

ROOT = Path(__file__).resolve().parents[3]
NOISY = """
import os, subprocess, sys
from continual.show.terminal import Terminal
with Terminal("log.txt") as terminal:
    print("noise of python")
    print("noise of stderr", file=sys.stderr)
    subprocess.run("echo noise of a child; echo more noise >&2", shell=True)
    os.write(1, b"noise of C\\n")
    terminal.line("for the user")
    with terminal.step("train") as step:
        step.update(1, 2)
        step.update(2, 2, "loss 0.5")
    if len(sys.argv) > 1:
        raise RuntimeError("broken")
print("after")
"""


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(folder: Path, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", NOISY, *arguments]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=env, text=True, **options)


def test_noise_goes_to_the_log_and_our_lines_to_both(tmp_path: Path) -> None:
    ran = run(tmp_path, capture_output=True)
    assert ran.stdout.splitlines()[0] == "for the user"
    assert ran.stdout.splitlines()[-1] == "after"
    assert "noise" not in ran.stdout
    assert ran.stderr == ""
    log = (tmp_path / "log.txt").read_text()
    for words in ("noise of python", "noise of stderr", "noise of a child", "more noise", "noise of C"):
        assert log.count(words) == 1
    assert log.count("for the user") == 1
    assert "train: 2, loss 0.5" in log
    assert "after" not in log


def test_the_terminal_is_given_back_after_an_error(tmp_path: Path) -> None:
    ran = run(tmp_path, "fail", capture_output=True)
    assert ran.returncode == 1
    assert ran.stderr.rstrip().endswith("RuntimeError: broken")


def test_on_a_real_terminal_a_step_is_one_line(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ran = run(tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 4096):
            seen += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    text = seen.decode()
    assert ran.returncode == 0
    assert "noise" not in text
    assert "\x1b[K" in text
    shown = [line.rsplit("\x1b[K", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    assert shown[0] == "for the user"
    assert shown[1].startswith("train: 2, loss 0.5")
    assert shown[2] == "after"
    assert "\x1b" not in (tmp_path / "log.txt").read_text()


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


def test_other_lines_stand_above_the_running_step(tmp_path: Path, clock: Clock) -> None:
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


def test_a_closed_terminal_ends_no_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Terminal(tmp_path / "log.txt", os.fdopen(writing, "w", closefd=False)) as terminal:
        terminal.line("nobody reads this")
    assert "nobody reads this" in (tmp_path / "log.txt").read_text()


def test_durations() -> None:
    spans = {0.04: "0.0 s", 9.94: "9.9 s", 9.96: "10 s", 59.4: "59 s", 59.6: "1 min 0 s", 3700: "1 h 1 min"}
    assert {seconds: duration(seconds) for seconds in spans} == spans


def score(value: float, error: float | None = None) -> dict[str, Any]:
    return {"score": value, "stderr": error, "n": 100}


MATRIX = [
    {"stage": 0, "name": "start", "scores": {"a": score(0.0, 0.001), "b": score(-1.3)}},
    {"stage": 1, "name": "first", "scores": {"a": score(0.99, 0.01), "b": score(-1.3)}},
    {"stage": 2, "name": "second", "scores": {"a": score(0.97, 0.01), "b": score(-2.25)}},
]
SUMMARY: dict[str, Any] = {
    "name": "demo", "status": "done", "stages": ["first", "second"], "tasks": ["a", "b"], "matrix": MATRIX,
    "average_score": 0.98, "forgetting": 0.02, "forgetting_old": None, "backward_transfer": -0.02,
    "forward_transfer": 0.0, "learning_accuracy": 0.99, "stderr": {"forgetting": 0.014, "forgetting_old": None},
    "generated_tokens": 12345, "reused_tokens": 0, "trained_tokens": 99, "seconds": {"train": 12.4},
    "checkpoints": {"first": "/m/1", "second": "/m/2"},
}  # fmt: skip


def test_the_matrix_as_a_table() -> None:
    assert matrix_table(MATRIX, ["a", "b"]).splitlines() == [
        "  stage     a             b",
        "  0 start   0.000 ±0.001  -1.300",
        "  1 first   0.990 ±0.010  -1.300",
        "  2 second  0.970 ±0.010  -2.250 ↓",
    ]
    coloured = matrix_table(MATRIX, ["a", "b"], colour=True)
    assert coloured.count("\x1b[31m") == 1
    assert "\x1b[31m-2.250 ↓\x1b[0m" in coloured
    missing = [{"stage": 0, "name": "start", "scores": {}}]
    assert matrix_table(missing, ["a"]).splitlines()[1].split() == ["0", "start", "-"]


def test_the_figures() -> None:
    lines = {line[2:20].strip(): line[21:] for line in figures_lines(SUMMARY)}
    assert lines["forgetting"] == "0.020 ±0.014"
    assert lines["forgetting, old"] == "-"
    assert lines["average score"] == "0.980"
    assert lines["backward transfer"] == "-0.020"
    assert lines["tokens"] == "12,345 sampled, 0 reused, 99 trained on"
    assert lines["time"] == "train 12 s"


def test_two_runs_side_by_side() -> None:
    other = {**SUMMARY, "forgetting": 0.97, "tasks": ["a"]}
    text = side_by_side(SUMMARY, other, ("with replay", "without"))
    lines = text.splitlines()
    assert lines[0].split("  ")[1] == "with replay"
    assert lines[0].endswith("without")
    assert any(line.count("forgetting ") == 2 and "0.020" in line and "0.970" in line for line in lines)
    assert len({line.index("stage", 10) for line in lines if line.count("stage") == 2}) == 1


def test_the_end_of_a_run_says_what_to_type_next(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    text = closing(SUMMARY, folder)
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db" in text
    assert "/m/2" in text
    assert "\x1b" not in text
    (folder / "config.yaml").write_text("track: {enabled: true, uri: 'http://host'}")
    assert "mlflow ui --backend-store-uri http://host" in closing(SUMMARY, folder)
    (folder / "config.yaml").write_text("track: {enabled: false, uri: null}")
    assert "mlflow" not in closing(SUMMARY, folder)


def test_colour_is_for_terminals_and_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert module.colours(Screen())
    assert not module.colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not module.colours(Screen())
