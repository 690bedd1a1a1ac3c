"""An action as a process: what is reported, and the exit code."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from continual.errors import ConfigurationError, ContinualError, Interrupted, process
from continual.errors.process import exit_code_of


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def fail(error: BaseException) -> None:
    raise error


def test_an_error_is_one_sentence_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: fail(ConfigurationError("name", "is wrong", "use another"))) == 2
    assert capsys.readouterr().err == "error: name: is wrong; use another\n"


def test_an_error_of_a_ray_task_is_reported_without_its_traceback() -> None:
    class Wrapped(ContinualError):
        cause = ContinualError("broken")

    errors: list[BaseException] = []
    assert exit_code_of(lambda: fail(Wrapped("a traceback")), errors.append) == 1
    assert errors == [Wrapped.cause]


def test_an_exception_that_nobody_expects_is_told_in_a_sentence_too() -> None:
    errors: list[BaseException] = []
    assert exit_code_of(lambda: fail(OSError("File name too long\nmore")), errors.append) == 1
    told, _, file = str(errors[0]).partition("; the traceback is in ")
    assert told == "OSError: File name too long"
    assert "Traceback" in Path(file).read_text()
    Path(file).unlink()


def test_ctrl_c_is_reported_as_an_interruption() -> None:
    errors: list[BaseException] = []
    assert exit_code_of(lambda: fail(KeyboardInterrupt()), errors.append) == 130
    assert [type(error) for error in errors] == [Interrupted]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_that_comes_twice_is_one(number: signal.Signals) -> None:
    """`timeout` signals the process and then its group: the second must not skip the checkpoint."""
    waited = []

    def action() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            signal.raise_signal(number)
            waited.append(True)
            raise

    errors: list[BaseException] = []
    assert exit_code_of(action, errors.append) == 130
    assert waited == [True]


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert exit_code_of(lambda: signal.raise_signal(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_failure_from_another_thread_ends_the_action() -> None:
    def action() -> None:
        threading.Thread(target=process.fail, args=(ContinualError("the head is gone"),)).start()
        time.sleep(30)

    errors: list[BaseException] = []
    assert exit_code_of(action, errors.append) == 1
    assert str(errors[0]) == "the head is gone"


def test_a_short_end_is_not_cut_off() -> None:
    def action() -> None:
        with process.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    assert exit_code_of(action) == 0
