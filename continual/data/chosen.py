"""Documents of a source by their numbers, as the records of a text's evaluation have them."""

from collections.abc import Iterator, Mapping
from typing import Any

from continual.contract.example import Example
from continual.contract.reading import read_part
from continual.contract.registry import SOURCES
from continual.contract.source import Source
from continual.errors import ConfigurationError


def numbered(source: Source) -> Iterator[tuple[int, Example]]:
    """Yield the documents of a source that can be used, with the number that counts all that are asked for.

    Raises ConfigurationError for one that cannot be used where `on_bad` is `refuse`.
    """
    selection, number = source.selection(), 0
    for part in source.parts():
        for found in read_part(source, part, selection):
            if found is None:
                continue
            if number == source.limit:
                return
            if found.example is not None:
                yield number, found.example
            elif found.problem is not None and source.on_bad == "refuse":
                raise found.problem
            number += 1


def words_of(example: Example) -> str:
    """Return all text of a document."""
    turns = [str(turn.get("content", "")) for turn in example.messages]
    return "\n".join(part for part in (example.text, example.prompt, example.completion, *turns) if part)


def chosen(data: Mapping[str, Any], numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the documents of the source `data` (as in a YAML) that have these numbers, in ascending order.

    A `python` source may call it: the documents describe their format by the names of their fields. Raises
    ConfigurationError if the source ends before the last of them.
    """
    source, wanted = SOURCES.build(dict(data)), set(numbers)
    for number, example in numbered(source):
        if number in wanted:
            wanted.remove(number)
            yield _document(example)
        if not wanted:
            return
    problem = f"`{source.title}` has no document {min(wanted)}"
    raise ConfigurationError(source.documents_key, problem, "use the text that the matrix was measured on")


def _document(example: Example) -> dict[str, Any]:
    if example.kind == "text":
        return {"text": example.text}
    if example.kind == "prompt":
        return {"prompt": example.prompt, "completion": example.completion}
    tools = {"tools": example.tools} if example.tools else {}
    turns, learned_from = example.messages, example.learned_from
    if learned_from:
        return {"prompt": turns[:learned_from], "completion": turns[learned_from:], **tools}
    return {"messages": turns, **tools}


def chosen_from(source: Source, numbers: list[int]) -> Source:
    """Return a source of those documents of another one that have these numbers, in ascending order."""
    chosen_ones: Source = SOURCES.build(
        {
            "type": "python",
            "function": f"{__name__}:{chosen.__name__}",
            "arguments": {"data": source.model_dump(mode="json"), "numbers": sorted(numbers)},
            "overlong": "cut" if source.cuts else "drop",
            "end_token": source.end_token,
        }
    )
    return chosen_ones
