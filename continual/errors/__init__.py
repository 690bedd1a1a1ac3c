"""Errors that a user meets. Each carries one sentence with the place and the way out, and decides the exit code."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class ContinualError(Exception):
    """The run failed (exit code 1)."""

    exit_code = 1


class ConfigurationError(ContinualError):
    """The configuration or the input it names is unusable (exit code 2).

    `file` is the sequence's YAML (added late, by the loader), `key` the dotted path, `fix` what to write instead.
    """

    exit_code = 2

    def __init__(self, key: str, problem: str, fix: str = "", file: str = ""):
        self.key, self.problem, self.fix, self.file = key, problem, fix, file
        super().__init__(key, problem, fix, file)

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.key) if part)
        sentence = f"{place}: {self.problem}" if place else self.problem
        return f"{sentence}; {self.fix}" if self.fix else sentence

    def within(self, prefix: str) -> "ConfigurationError":
        """The same error seen from an outer key, e.g. `stages.0.data` before `path`."""
        key = f"{prefix}.{self.key}" if self.key else prefix
        return ConfigurationError(key, self.problem, self.fix, self.file)


class ForgotTooMuch(ContinualError):
    """The sequence is done, but forgot more than `--max-forgetting` (exit code 3)."""

    exit_code = 3


class Interrupted(ContinualError):
    """Ctrl-C; what is on disk is whole and the same command goes on (exit code 130)."""

    exit_code = 130


def unwrapped(error: BaseException) -> BaseException:
    """What was raised inside a task of Ray, as far as Ray kept it: its own text is a whole traceback."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


def last_line(error: BaseException) -> str:
    """The last line of an error, with its type where the text does not begin with one; "" for an empty text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ""
    # The text of an error that Ray kept as text is a traceback, and its last line has the type already.
    return lines[-1] if len(lines) > 1 else f"{type(error).__name__}: {lines[0]}"


@contextmanager
def told(file: str) -> Iterator[None]:
    """Turns whatever leaves the block into one sentence of ours; a traceback goes to stderr, the run's log."""
    try:
        yield
    except Exception as error:
        inner = unwrapped(error)
        if inner is error and isinstance(error, ContinualError):
            if isinstance(error, ConfigurationError) and not error.file:
                raise ConfigurationError(error.key, error.problem, error.fix, file) from error
            raise
        traceback.print_exc()
        if isinstance(inner, ConfigurationError):
            raise ConfigurationError(inner.key, inner.problem, inner.fix, inner.file or file) from error
        if isinstance(inner, ContinualError):
            raise inner from error
        raise ContinualError(f"{last_line(inner) or last_line(error)}; the run's log.txt has all of it") from error
