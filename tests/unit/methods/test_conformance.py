"""Every registered method passes the checks that an outside package can run on its own."""

import pytest

from continual.contract.registry import MITIGATIONS
from continual.testing import InProcessConformance
from tests.kits.methods import VARIANTS, replay_stored_rows


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    replay_stored_rows(monkeypatch)


def test_no_method_is_missing_here() -> None:
    assert {variant["options"]["type"] for variant in VARIANTS.values()} >= set(MITIGATIONS.names())


def _class(name: str) -> type[InProcessConformance]:
    title = "Test" + name.title().replace("_", "").replace("-", "")
    return type(title, (InProcessConformance,), {"__module__": __name__, **VARIANTS[name]})


for variant in VARIANTS:
    globals()[_class(variant).__name__] = _class(variant)
del variant
