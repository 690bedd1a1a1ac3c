"""The conformance suite passes what is sound, and each of its checks finds what it is for."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from continual.contract.mitigation import Mitigation
from continual.testing import InProcessConformance, rules, two_ranks
from tests.kits import broken


class TestSound(InProcessConformance):
    options: ClassVar[dict[str, Any]] = {"type": "tests.kits.broken:Sound"}
    zero: ClassVar[dict[str, Any] | None] = {"weight": 0}
    exact_tokens = True


def suite(kind: type[Mitigation], zero: dict[str, Any] | None = None, **options: Any) -> InProcessConformance:
    attributes = {"options": {"type": f"{kind.__module__}:{kind.__name__}", **options}, "zero": zero}
    found: InProcessConformance = type("Suite", (InProcessConformance,), attributes)()
    return found


def test_a_zero_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="the task's losses"):
        suite(broken.Strong, zero={"weight": 0}).test_strength_zero_is_plain_training(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "message"), [(broken.Idle, "does nothing"), (broken.Forgetful, "of step . after a resume")]
)
def test_training_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Mitigation], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        suite(kind).test_it_changes_training_and_resumes_bit_by_bit(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (broken.Unplanned, "samples 160 tokens in stage 1, and plans 144"),
        (broken.Greedy, "replay_ratio"),
        (broken.Misnamed, "its stream is called other, not `Misnamed`"),
    ],
)
def test_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Mitigation], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        suite(kind, ratio=0.5).test_the_plan_is_what_was_used(tmp_path, monkeypatch)


@pytest.mark.parametrize(("kind", "message"), [(broken.Wordy, "several lines"), (broken.Undecided, "no fix")])
def test_refusals(tmp_path: Path, kind: type[Mitigation], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        suite(kind).test_unsuitable_stages_are_refused_in_one_sentence(tmp_path)


def test_a_long_refusal() -> None:
    with pytest.raises(AssertionError, match="303 characters"):
        rules.assert_sentence("a" * 300 + "; b", "a case")


def test_options(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"\.strength"):
        suite(broken.Undescribed).test_every_option_is_described(tmp_path)
    with pytest.raises(AssertionError, match="is accepted"):
        suite(broken.Lenient).test_unknown_options_are_refused(tmp_path)


@pytest.mark.parametrize(
    ("module", "message"), [("continual.config.schema", "continual.contract.base"), ("safetensors.torch", "'torch'")]
)
def test_imports(module: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        rules.assert_imports(type("Kind", (Mitigation,), {"__module__": module}))


def test_different_losses_of_two_strategies() -> None:
    losses = [{"task": 1.0}] * two_ranks.STEPS
    two_ranks.assert_equal({"ddp": losses, "other": losses})
    with pytest.raises(AssertionError, match="losses of step 20"):
        two_ranks.assert_equal({"ddp": losses, "other": [*losses[:-1], {"task": 1.0 + 3e-6}]})
