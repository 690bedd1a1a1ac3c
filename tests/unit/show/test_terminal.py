"""The terminal: our lines for the user, everything else in the log."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from continual.show.terminal import Terminal, colors

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


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


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


def test_a_closed_terminal_ends_no_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Terminal(tmp_path / "log.txt", os.fdopen(writing, "w", closefd=False)) as terminal:
        terminal.line("nobody reads this")
    assert "nobody reads this" in (tmp_path / "log.txt").read_text()


def test_color_is_for_terminals_and_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colors(Screen())
    assert not colors(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colors(Screen())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_does_not_hide_the_error_that_ended_the_run() -> None:
    screen = io.StringIO()
    with (
        pytest.raises(RuntimeError, match="no space left for the checkpoint"),
        Terminal("/dev/full", screen) as terminal,
    ):
        terminal.line("before")
        raise RuntimeError("no space left for the checkpoint")
    assert screen.getvalue() == "before\n"
