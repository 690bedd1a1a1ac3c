"""Any exception as one sentence for the user."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from continual.errors.types import ConfigurationError, ContinualError


def unwrap(error: BaseException) -> BaseException:
    """Return the exception that a Ray task raised, if Ray kept it: the text of Ray's own error is a whole traceback."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


def describe(error: BaseException) -> str:
    """Return the last line of an error's text, with the error's type; "" if the text is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ""
    # A text of several lines is a traceback that Ray kept as text: its last line names the type already.
    return lines[-1] if len(lines) > 1 else f"{type(error).__name__}: {lines[0]}"


def one_line(error: BaseException, longest: int = 160) -> str:
    """Return an exception's text on one line of at most `longest` characters, or its type if it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


@contextmanager
def naming_file(file: str) -> Iterator[None]:
    """Give a ConfigurationError from the block `file` as its file if it has none."""
    try:
        yield
    except ConfigurationError as error:
        raise error.in_file(file) from error


@contextmanager
def as_one_sentence(file: str) -> Iterator[None]:
    """Convert any exception from the block into a ContinualError with a one-sentence message.

    A ConfigurationError gets `file` as its file if it has none. The traceback of any other library's exception, and of
    one from a Ray task, is printed to stderr, which goes to the run's log.
    """
    try:
        yield
    except Exception as error:
        inner = unwrap(error)
        if inner is not error or not isinstance(error, ContinualError):
            traceback.print_exc()
        if isinstance(inner, ConfigurationError):
            raise inner.in_file(file) from error
        if inner is error and isinstance(error, ContinualError):
            raise
        if isinstance(inner, ContinualError):
            raise inner from error
        raise ContinualError(f"{describe(inner) or describe(error)}; the run's log.txt has the traceback") from error
