"""The gate: at a limit, within the error, beyond it; by figure and by task; limits that have no meaning."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Sequence
from continual.errors import ConfigurationError, ForgotTooMuch
from continual.forgetting import losses_of
from continual.preflight.check_evaluation import check_limits, check_own_limits
from continual.run.gate import gate, limits_of

DATA = {"type": "jsonl", "path": "x.jsonl", "text": "text"}


def summary(loss: float | None, error: float | None, **by_task: float) -> dict[str, Any]:
    ends = None if loss is None or error is None else [loss - 1.96 * error, loss + 1.96 * error]
    tasks = {task: [value - 0.02, value + 0.02] for task, value in by_task.items()}
    return {
        "forgetting": loss, "forgetting_old": None, "forgetting_by_task": by_task,
        "interval": {"forgetting": ends, "forgetting_old": None, "forgetting_by_task": tasks},
    }  # fmt: skip


def sequence(names: str = "ab", **evaluate: Any) -> Sequence:
    stages = [{"name": name, "data": DATA, "steps": 1, "tasks": [name]} for name in names]
    model = {"type": "pretrained", "source": "m"}
    return Sequence.model_validate({"name": "s", "model": model, "stages": stages, "evaluate": evaluate})


RUN = sequence("abz", old_tasks=["c"], texts=[{"name": "text", "data": DATA}])


@pytest.mark.parametrize(("loss", "error"), [(0.05, 0.0), (0.05, None), (0.04, 0.01), (None, None), (-0.1, 0.0)])
def test_at_the_limit_and_below_it_a_run_passes_without_a_word(loss: float | None, error: float | None) -> None:
    assert gate(summary(loss, error), {"forgetting": 0.05, "forgetting_old": 0.05}, RUN) == []


def test_above_the_limit_by_less_than_its_error_a_run_passes_and_says_so() -> None:
    [note] = gate(summary(0.06, 0.02), {"forgetting": 0.05}, RUN)
    assert "forgetting 0.0600 is above 0.05 by less than its error" in note


def test_beyond_the_limit_and_its_error_the_tasks_are_named() -> None:
    found = summary(0.3, 0.02, a=0.1, b=0.5, c=0.7, text=0.9) | {
        "fell": [[], ["b", "text"]], "p_value": {"a": 0.2, "b": 0.0, "c": 0.1, "text": 0.0},
    }  # fmt: skip
    with pytest.raises(ForgotTooMuch) as raised:
        gate(found, {"forgetting": 0.05}, RUN)
    assert "forgetting 0.3000 is more than 0.05 (95 % interval 0.2608 to 0.3392)" in str(raised.value)
    assert str(raised.value).endswith("lost most: `b` 0.5000, `a` 0.1000 (not significant among all tasks)"), (
        "no old task, no text"
    )
    assert raised.value.exit_code == 3
    with pytest.raises(ForgotTooMuch, match=r"lost most: `c` 0\.7000 \(not significant among all tasks\)$"):
        gate(found | {"forgetting_old": 0.7}, {"forgetting_old": 0.05}, RUN)


def test_a_loss_that_equals_its_limit_but_for_rounding_passes() -> None:
    assert 0.8 - 0.75 > 0.05
    for error in (0.0, None):
        assert gate(summary(0.8 - 0.75, error), {"forgetting": 0.05}, RUN) == []


def test_one_limit_for_two_units_that_only_the_scores_tell_is_noted() -> None:
    units = {"figure_unit": {"forgetting": "acc", "forgetting_old": "-word_perplexity"}}
    found = summary(0.01, 0.0) | units
    [note] = gate(found, {"forgetting": 0.05, "forgetting_old": 0.05}, RUN)
    assert "`forgetting` (acc) and `forgetting_old` (-word_perplexity) have the limit 0.05" in note
    assert gate(found, {"forgetting": 0.05, "forgetting_old": 2.0}, RUN) == []


def test_an_unknown_error_passes_nothing() -> None:
    with pytest.raises(ForgotTooMuch, match="its error is unknown"):
        gate(summary(0.0501, None), {"forgetting": 0.05}, RUN)


def test_a_task_has_its_own_limit_in_its_own_unit() -> None:
    found = summary(0.0, 0.0, a=0.1, text=0.1)
    assert gate(found, {"text": 0.5}, RUN) == []
    with pytest.raises(ForgotTooMuch, match=r"loss of `a` 0\.1000 is more than 0\.05"):
        gate(found, {"a": 0.05, "text": 0.5}, RUN)


def test_limits_come_from_the_yaml_and_the_command_line() -> None:
    both = {"forgetting": 0.1, "forgetting_old": 0.1}
    assert limits_of(sequence(), None) == {}
    assert limits_of(sequence(max_forgetting=0.1), None) == both
    assert limits_of(sequence(max_forgetting={"default": 0.1, "a": 0.2}), None) == both | {"a": 0.2}
    assert limits_of(sequence(max_forgetting={"default": 0.1, "a": 0.2}), 0.3) == {
        "forgetting": 0.3, "forgetting_old": 0.3, "a": 0.2,
    }  # fmt: skip
    own = {"forgetting": 0.1, "forgetting_old": 0.2}
    assert limits_of(sequence(max_forgetting=own), 0.3) == own


def test_a_limit_of_something_that_is_not_measured_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"evaluate\.max_forgetting\.forgeting: .* did you mean `forgetting`"):
        check_limits(sequence(max_forgetting={"forgeting": 0.1}))
    check_limits(sequence(max_forgetting={"a": 0.1, "default": 0.2}))


def test_one_limit_for_two_units_is_refused() -> None:
    texts: dict[str, Any] = {"texts": [{"name": "story", "data": DATA}]}
    for limit, default, key in ((0.1, None, "evaluate.max_forgetting"), (None, 0.1, "--max-forgetting")):
        with pytest.raises(ConfigurationError, match="two units") as raised:
            check_limits(sequence(**texts, max_forgetting=limit), default)
        assert str(raised.value).startswith(key)
    check_limits(sequence(**texts, max_forgetting={"forgetting": 0.1, "forgetting_old": 0.3}), 0.2)
    check_limits(sequence(**texts, old_tasks=["old"], max_forgetting=0.1))


@given(
    loss=st.none() | st.floats(-1, 1), error=st.none() | st.floats(0, 0.2), a=st.floats(-1, 1), limit=st.floats(-1, 1)
)
def test_a_run_passes_where_no_loss_exceeds_its_limit(
    loss: float | None, error: float | None, a: float, limit: float
) -> None:
    found, limits = summary(loss, error, a=a), {"forgetting": limit, "a": limit}
    losses = losses_of(found)
    assert losses.keys() == {"a"} | ({"forgetting"} if loss is not None else set())
    least = {"a": a - 0.02, "forgetting": -9.0 if loss is None else loss - 1.96 * (error or 0.0)}
    assert any(each > limit + 1e-9 for each in least.values()) == any(
        losses[name].exceeds(limits[name]) for name in losses
    )
    if any(each.exceeds(limit) for each in losses.values()):
        with pytest.raises(ForgotTooMuch):
            gate(found, limits, RUN)
    else:
        gate(found, limits, RUN)


def test_limits_of_a_method_are_checked_by_its_key() -> None:
    key = "mitigation.0"
    check_own_limits(key, {}, sequence())
    check_own_limits(key, {"default": 0.1, "a": 0.2}, sequence())
    with pytest.raises(ConfigurationError, match=r"mitigation\.0\.max_forgetting\.aa: nothing of this name .* `a`"):
        check_own_limits(key, {"aa": 0.1}, sequence("az"))
    with pytest.raises(ConfigurationError, match=r"mitigation\.0\.max_forgetting: nothing is measured that could be"):
        check_own_limits(key, {"default": 0.1}, sequence("a"))
    check_own_limits(key, {"forgetting_old": 0.1}, sequence("a", old_tasks=["old"]))
    texts: dict[str, Any] = {"texts": [{"name": "story", "data": DATA}]}
    with pytest.raises(ConfigurationError, match=r"two units.*`mitigation\.0\.max_forgetting: \{forgetting: 0\.05"):
        check_own_limits(key, {"default": 0.1}, sequence(**texts))
