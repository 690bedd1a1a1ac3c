"""Errors: how one gets its file, how any exception becomes one sentence, what a misspelled word was meant to be."""

import errno
import shutil
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

from continual.errors import (
    ConfigurationError,
    ContinualError,
    Interrupted,
    as_one_sentence,
    describe,
    nearest,
    one_line,
    unwrap,
)


class FromTask(Exception):
    """An error as Ray raises it: the task's own is its cause, its text a traceback."""

    def __init__(self, cause: Exception):
        super().__init__(f"Traceback\n  File\n{type(cause).__name__}: {cause}")
        self.cause = cause


def raised_by(error: Exception) -> ContinualError:
    with pytest.raises(ContinualError) as raised, as_one_sentence("seq.yaml"):
        raise error
    return raised.value


def test_an_error_gets_a_file_once() -> None:
    error = ConfigurationError("a.b", "it is wrong", "write 1")
    assert str(error) == "a.b: it is wrong; write 1"
    assert str(error.in_file("seq.yaml")) == "seq.yaml: a.b: it is wrong; write 1"
    assert error.in_file("seq.yaml").in_file("other.yaml").file == "seq.yaml"
    assert error.in_file("seq.yaml").within("c").key == "c.a.b"


def test_a_configuration_error_from_a_task_gets_the_file() -> None:
    assert str(raised_by(FromTask(ConfigurationError("a", "wrong")))) == "seq.yaml: a: wrong"
    assert str(raised_by(ConfigurationError("a", "wrong", file="own.yaml"))) == "own.yaml: a: wrong"


def test_an_error_of_ours_leaves_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    error = Interrupted("stopped")
    assert raised_by(error) is error
    assert capsys.readouterr().err == ""
    assert raised_by(FromTask(error)) is error
    assert "Traceback" in capsys.readouterr().err


def test_any_other_exception_becomes_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised_by(FromTask(ValueError("no\nluck")))
    assert type(error) is ContinualError
    assert str(error) == "ValueError: no; the run's log.txt has the traceback"
    assert "ValueError: no" in capsys.readouterr().err


def test_an_error_without_text_is_described_by_what_wraps_it() -> None:
    assert describe(ValueError()) == "ValueError"
    assert str(raised_by(FromTask(ValueError()))).startswith("ValueError;")
    assert unwrap(FromTask(error := ValueError())) is error


def test_a_text_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("a" * 500))) == 160


def test_the_nearest_word() -> None:
    assert nearest("anwser", ["question", "answer"]) == "answer"
    assert nearest("anwser", ["question"]) is None
    assert nearest("arc", ["arc_easy"], length_difference=4) is None
    assert nearest("arc_esay", ["arc_easy"], length_difference=4) == "arc_easy"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota"), RuntimeError("[Errno 28] No space left on device")],
)
def test_a_full_disk_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Also where the traceback cannot be written, because the log lies on that disk."""
    usage = {str(tmp_path): 0}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=usage.get(str(place), 1 << 30)))
    monkeypatch.setattr(traceback, "print_exc", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(ContinualError) as raised, as_one_sentence("seq.yaml", str(tmp_path)):
        raise error
    fix = "free some of it, then run the same command again to resume"
    assert str(raised.value) == f"the disk of {tmp_path} is full; {fix}"


def test_a_sentence_is_one_line_whatever_it_quotes() -> None:
    error = ConfigurationError("key", "`a\nb\x1b[31m\x85c\u2028é` is wrong", "correct it")
    assert error.short() == "key: `a\\nb\\x1b[31m\\x85c\\u2028é` is wrong; correct it"
