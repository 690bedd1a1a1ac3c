"""A page of the report as a test reads it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Read(HTMLParser):
    """What a page has: elements with attributes, text, and the numbers that carry where they come from."""

    def __init__(self, page: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self.numbers: dict[tuple[str, str], tuple[float, str]] = {}
        self._open: tuple[str, str] | None = None
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append((tag, values))
        if tag == "data":
            self._open = (str(values["data-run"]), str(values["data-key"]))
            assert values["value"] == values["data-value"]
            self.numbers[self._open] = (json.loads(str(values["data-value"])), "")

    def handle_endtag(self, tag: str) -> None:
        self._open = None if tag == "data" else self._open

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open:
            self.numbers[self._open] = (self.numbers[self._open][0], data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [values for name, values in self.elements if name == tag]
