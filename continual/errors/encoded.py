"""Percent-encoded text: what it says, and where each character of that was written."""

import re

RUN = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def decoded(text: str) -> tuple[str, list[int]]:
    """Return a text decoded once, and where each of its characters begins in `text`, and where the last one ends."""
    parts: list[str] = []
    starts: list[int] = []
    at = 0
    for run in RUN.finditer(text):
        parts.append(text[at : run.start()])
        starts += range(at, run.start())
        at = run.start()
        for character in bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogateescape"):
            parts.append(character)
            starts.append(at)
            at += 3 * len(character.encode("utf-8", "surrogateescape"))
    parts.append(text[at:])
    starts += range(at, len(text) + 1)
    return "".join(parts), starts


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that overlap as one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first < found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
