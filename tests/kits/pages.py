"""The project's texts, taken apart for the tests: blocks of code, code in the text, links, headings."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block: `comment` is the HTML comment on the line before it, `number` counts the page's blocks from 1."""

    page: str
    number: int
    language: str
    comment: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, of one language or of all."""
    found = enumerate(FENCE.finditer(page.read_text()), 1)
    every = [Block(name(page), n, m["language"], m["comment"] or "", m["text"]) for n, m in found]
    return [block for block in every if language in (None, block.language)]


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def code_spans(page: Path) -> list[str]:
    """Return the code in the page's text, without its backquotes."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def links(page: Path) -> list[str]:
    """Return the targets of the page's relative links and pictures."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Return what links to the page's headings end with, as GitHub makes it from their text."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
