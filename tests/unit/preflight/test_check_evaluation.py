"""The check of units before a start agrees with the check of the scores: one rule, in evaluation.names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import EvaluationTask
from continual.errors import ConfigurationError
from continual.evaluation.names import ACCURACY, PREFERRED, TEXT_UNIT, unit
from continual.forgetting import check_units as check_scores
from continual.preflight.check_evaluation import check_units

KNOWN = [*ACCURACY, *PREFERRED, "brier_score", "chrf", "ter", "word_perplexity", "bits_per_byte", "prompt_level_acc"]
metrics = st.sampled_from(sorted({*KNOWN})) | st.from_regex(r"[a-z_@0-9]{1,12}", fullmatch=True)


def accepts(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except ConfigurationError:
        return False
    return True


@given(named=st.lists(metrics, min_size=1, max_size=4), texts=st.integers(0, 1))
def test_what_the_check_accepts_has_a_mean_and_the_other_way_round(named: list[str], texts: int) -> None:
    tasks = [EvaluationTask(name=f"task{number}", metric=metric) for number, metric in enumerate(named)]
    tasks += [EvaluationTask(name="text")] * texts
    units = {task.name: unit(task.metric) if task.metric else TEXT_UNIT for task in tasks}
    before = accepts(check_units, [("stages.0.tasks", task) for task in tasks], {"text"})
    assert before == accepts(check_scores, [list(units)], [], units)
    assert before == accepts(check_scores, [], list(units), units)


@pytest.mark.parametrize("other", ["mcc", "brier_score", "bleu", "f1_macro"])
def test_accuracy_has_no_mean_with(other: str) -> None:
    tasks = [EvaluationTask(name="a", metric="acc"), EvaluationTask(name="b", metric=other)]
    with pytest.raises(ConfigurationError, match=f"`b` is scored in {other} and `a` in accuracy") as raised:
        check_units([("stages.0.tasks", tasks[0]), ("stages.1.tasks", tasks[1])])
    assert raised.value.key == "stages.1.tasks"


def test_a_task_without_a_metric_is_left_to_lm_eval() -> None:
    check_units([("key", EvaluationTask(name="a", metric="acc")), ("key", EvaluationTask(name="b"))])
