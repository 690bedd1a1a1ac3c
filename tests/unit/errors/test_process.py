"""An action as a process: what is reported, and the exit code."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from continual.errors import ConfigurationError, ContinualError, Interrupted
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
