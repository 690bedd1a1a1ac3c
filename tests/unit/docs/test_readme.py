"""The README names every file of the packages with one line, and no file that is not there."""

import re

import pytest

from continual.contract.mitigation import REGISTRY
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def tree() -> list[str]:
    """The paths in the README's file tree."""
    block = next(b for b in README.split("```") if b.startswith("\ncontinual/\n"))
    found, folder = [], ""
    for line in block.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            top = folder = name
        elif name.endswith("/"):
            folder = top + name
        else:
            found.append((folder if line.startswith("    ") else top) + name)
    return found


@pytest.mark.parametrize("package", ["continual", "baselines"])
def test_the_tree_is_the_folder(package: str) -> None:
    there = {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*.py") if p.name != "__init__.py"}
    assert {path for path in tree() if path.startswith(package)} == there


def test_every_mitigation_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == set(REGISTRY.names())


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"\b[A-Z]+_(?:OUTPUT|HARDWARE|TABLE)\b|^TREE$", README, re.MULTILINE)
