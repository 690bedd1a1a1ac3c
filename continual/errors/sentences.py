"""Any exception as one sentence for the user."""

import errno
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors.foreign import MEMORY_LOW, PERHAPS_MEMORY, causes, clean, ours_in_text, own_line
from continual.errors.types import LONGEST, ConfigurationError, ContinualError

FULL, NO_SPACE = (errno.ENOSPC, errno.EDQUOT), "No space left on device"
AGAIN = "run the same command again to resume"


def unwrap(error: BaseException) -> BaseException:
    """Return the exception that tells most: the outermost of ours, else the innermost of another library, or the one of
    Ray whose text alone has that.

    Ray carries exceptions of its tasks as causes, or as a traceback's text: the text of its own is not for users.
    """
    chain = causes(error)
    for known in chain:
        if isinstance(known, ContinualError):
            return _without_advice(known)
    for known in chain:
        if ours := ours_in_text(known):
            return ours
    return chain[-1]


def _without_advice(error: ContinualError) -> ContinualError:
    """Take away what Ray Data has put into the first argument of an exception of ours."""
    if error.args and isinstance(error.args[0], str):
        error.args = (clean(error.args[0]), *error.args[1:])
        if isinstance(error, ConfigurationError):
            error.key = clean(error.key)
    return error


def describe(error: BaseException) -> str:
    """Return what an exception says in one line: our sentence, or type and first line of the innermost one.

    What libraries write below their first line are hints, e.g. how to try again. An exception without a text leaves
    the word to the one that was raised from it.
    """
    inner = unwrap(error)
    if isinstance(inner, ContinualError):
        return str(inner)
    lines = (own_line(known) for known in reversed(causes(error)))
    return next((line for line in lines if line), type(inner).__name__)


def with_fix(sentence: str) -> str:
    """Return the sentence with what to do after a process was killed: all that was done is kept."""
    if sentence.endswith(MEMORY_LOW):
        return f"{sentence}; let less run at one time, or use a machine with more memory, then {AGAIN}"
    return f"{sentence}; {AGAIN}" if sentence.endswith(PERHAPS_MEMORY) else sentence


def one_line(error: BaseException, longest: int = 160) -> str:
    """Return an exception's text on one line of at most `longest` characters, or its type if it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def together(errors: Sequence[ConfigurationError], more: int = 0) -> ConfigurationError:
    """Return the first of some errors, which names the others: all mistakes of a file are told at once.

    As many are named as a sentence of moderate length holds; the rest is counted, and `more` with it.
    """
    distinct = {(error.key, error.problem): error for error in reversed(errors)}
    first, *others = reversed(distinct.values())
    count = len(others) + more
    if not count:
        return first
    rest, left = f"and {count} more error{'s' * (count > 1)}", LONGEST - len(str(first)) - 30
    named: list[str] = []
    for other in others:
        for text in (f"{other.key}: {other.problem}", other.key):
            if len(text) + 2 <= left:
                named.append(text)
                left -= len(text) + 2
                break
    told = f"({rest}: {', '.join(named)})" if named else f"({rest})"
    fix = f"{first.fix} {told}" if first.fix else told
    return ConfigurationError(first.key, first.problem, fix, first.file)


@contextmanager
def naming_file(file: str) -> Iterator[None]:
    """Give a ConfigurationError from the block `file` as its file if it has none."""
    try:
        yield
    except ConfigurationError as error:
        raise error.in_file(file) from error


def full_disk(error: BaseException, storage: str) -> ContinualError | None:
    """Return what to say where a disk was full, that of `storage` or of temporary files; None for any other end.

    The exception itself seldom tells the file.
    """
    if not any(getattr(known, "errno", None) in FULL or NO_SPACE in str(known) for known in causes(error)):
        return None
    places = [place for place in (storage, tempfile.gettempdir()) if place and Path(place).is_dir()]
    place = min(places, key=lambda place: shutil.disk_usage(place).free, default=storage)
    return ContinualError(f"the disk of {place} is full; free some of it, then {AGAIN}")


@contextmanager
def as_one_sentence(file: str, storage: str = "") -> Iterator[None]:
    """Convert any exception from the block into a ContinualError with a one-sentence message.

    A ConfigurationError gets `file` as its file if it has none. The traceback of any other library's exception, and of
    one from a Ray task, is printed to stderr, which goes to the run's log, as far as the disk of `storage` has room.
    """
    try:
        yield
    except Exception as error:
        inner = unwrap(error)
        if inner is not error or not isinstance(error, ContinualError):
            with suppress(OSError):
                traceback.print_exc()
        if full := full_disk(error, storage):
            raise full from error
        if isinstance(inner, ConfigurationError):
            raise inner.in_file(file) from error
        if inner is error and isinstance(error, ContinualError):
            raise
        if isinstance(inner, ContinualError):
            raise inner from error
        raise ContinualError(f"{with_fix(describe(error))}; the run's log.txt has the traceback") from error
