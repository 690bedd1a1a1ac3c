"""A source as it is read, document by document: the one way, for the check, the estimate and the run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from continual.contract.columns import kind_of
from continual.contract.example import Example
from continual.contract.selection import Selection
from continual.errors import ConfigurationError, one_line
from continual.errors.budget import Enough

ONE_DOCUMENT = "give one mapping of fields per document"


class Readable(Protocol):
    """What reading needs of a source; see `continual.contract.source.Source`."""

    documents_key: ClassVar[str]

    @property
    def on_bad(self) -> str: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def title(self) -> str: ...
    def parts(self) -> list[str]: ...
    def read(self, part: str) -> Iterator[tuple[str, Mapping[str, Any] | ConfigurationError]]: ...
    def example(self, document: Mapping[str, Any]) -> Example: ...
    def selection(self) -> Selection: ...


@dataclass(frozen=True)
class Found:
    """A document that is asked for.

    Attributes:
        place: Where it stands, for messages, e.g. `train.jsonl line 30`.
        example: What is learned of it; None if it cannot be used.
        problem: Why it cannot be used, with its place; None if it can.
        document: The document as it was read, {} if it could not be.
    """

    place: str
    example: Example | None = None
    problem: ConfigurationError | None = None
    document: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Beginning:
    """The first documents of a source that can be used, and what was met on the way to them.

    Attributes:
        found: The documents.
        skipped: Problems of documents that `on_bad: skip` leaves out.
        selection: What was asked for and met.
        whole: Whether these are all documents of the source.
        full: Whether these are all that its `limit` asks for.
    """

    found: list[Found]
    skipped: list[ConfigurationError]
    selection: Selection
    whole: bool
    full: bool = False


def read_part(source: Readable, part: str, selection: Selection) -> Iterator[Found | None]:
    """Yield the documents of a part, None for one that is not asked for; `selection` counts these.

    Raises:
        ConfigurationError: The part cannot be read on, whatever `on_bad` says.
    """
    documents = iter(source.read(part))
    place = ""
    while True:
        try:
            place, document = next(documents)
        except StopIteration:
            return
        except (ConfigurationError, Enough):
            raise
        except Exception as error:
            behind = f" behind {place}" if place else ""
            problem = f"{part or source.title} cannot be read{behind} ({type(error).__name__}: {one_line(error)})"
            raise ConfigurationError(source.documents_key, problem, "replace or correct it") from error
        if isinstance(document, ConfigurationError):
            yield Found(place, problem=document.at(place))
        elif not isinstance(document, Mapping):
            problem = ConfigurationError(source.documents_key, f"{kind_of(document)}, not one mapping", ONE_DOCUMENT)
            yield Found(place, problem=problem.at(place))
        else:
            yield _found(source, place, document) if selection.takes(document) else None


def _found(source: Readable, place: str, document: Mapping[str, Any]) -> Found:
    try:
        return Found(place, source.example(document), None, document)
    except ConfigurationError as error:
        return Found(place, None, error.at(place), document)
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        # A value of a kind that nobody thought of is a fault of this document, not of the source.
        problem = f"the document cannot be used ({type(error).__name__}: {one_line(error)})"
        unusable = ConfigurationError(source.documents_key, problem, "write simpler values")
        return Found(place, None, unusable.at(place), document)


def beginning(source: Readable, count: int, most: int) -> Beginning:
    """Return the first `count` usable documents, spread over the first files; look at no more than `most` others, and
    read no more than a limit allows (see `continual.errors.budget`).

    With a `limit` they are not spread, and documents that cannot be used count towards it: the run reads no further.

    Raises:
        ConfigurationError: The source cannot be read, or a document cannot be used and `on_bad` is `refuse`.
    """
    selection = source.selection()
    read = Beginning([], [], selection, whole=True)
    try:
        parts = source.parts()
    except Enough:
        return Beginning([], [], selection, whole=False)
    wanted = min(count, source.limit or count)
    spread = parts if source.limit else parts[:wanted]
    for number, part in enumerate(spread):
        share = wanted - len(read.found) - len(read.skipped) if source.limit else -(-wanted // len(spread))
        if share <= 0:
            read.whole = False
            break
        read.whole = _read_some(source, part, read, share, most) and read.whole
        read.whole = read.whole and (number + 1 < len(spread) or len(spread) == len(parts))
    read.full = len(read.found) + len(read.skipped) == source.limit
    return read


def _read_some(source: Readable, part: str, read: Beginning, share: int, most: int) -> bool:
    """Add at most `share` documents of a part to `read`; return whether it has no more."""
    taken = 0
    try:
        for found in read_part(source, part, read.selection):
            if found is not None and found.problem is not None:
                if source.on_bad == "refuse":
                    raise found.problem
                read.skipped.append(found.problem)
                taken += source.limit is not None
            elif found is not None:
                read.found.append(found)
                taken += 1
            if taken >= share or read.selection.left_out + len(read.skipped) >= most:
                return False
    except Enough:
        return False
    return True
