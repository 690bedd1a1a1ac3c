"""The README lists every method, and nothing in it is left to fill in."""

import re

from continual.contract.mitigation import REGISTRY
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_every_mitigation_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == set(REGISTRY.names())


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"\b[A-Z]+_(?:OUTPUT|HARDWARE|TABLE)\b|^TREE$", README, re.MULTILINE)
