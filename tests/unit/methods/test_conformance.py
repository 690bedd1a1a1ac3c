"""Every registered method passes the checks that an outside package can run on its own."""

import pytest

from baselines.instruction_synthesis import InstructionSynthesis
from continual.contract.registry import MITIGATIONS
from continual.testing import InProcessConformance
from tests.kits.methods import VARIANTS


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored rows stand for the answers of a committee; the tests of instruction synthesis make some."""
    monkeypatch.setattr(InstructionSynthesis, "rows", lambda self, ctx: ctx.read(None))


def test_no_method_is_missing_here() -> None:
    assert {variant["options"]["type"] for variant in VARIANTS.values()} >= set(MITIGATIONS.names())


def _class(name: str) -> type[InProcessConformance]:
    title = "Test" + name.title().replace("_", "").replace("-", "")
    return type(title, (InProcessConformance,), {"__module__": __name__, **VARIANTS[name]})


for variant in VARIANTS:
    globals()[_class(variant).__name__] = _class(variant)
del variant
