"""Classes of other packages that are not whole are refused in a sentence."""

from typing import Any

import pytest

from continual.contract.registry import MITIGATIONS, SOURCES
from continual.contract.replay import Replay
from continual.contract.source import Source


class NoRows(Replay):
    type: str


class NoReading(Source):
    type: str


@pytest.mark.parametrize(
    ("registry", "name", "words"),
    [
        (MITIGATIONS, "NoRows", "the mitigation `{name}` lacks `rows`; write what is missing"),
        (SOURCES, "NoReading", "the data source `{name}` lacks "),
    ],
)
def test_a_class_without_a_method_is_refused(registry: Any, name: str, words: str) -> None:
    reference = f"{__name__}:{name}"
    with pytest.raises(ValueError, match="lacks") as raised:
        registry.build({"type": reference})
    assert str(raised.value).startswith(words.format(name=reference))
