"""Which number of an lm-eval result is the score, and which way it counts."""

import math

import pytest

from continual.errors import ConfigurationError, ContinualError
from continual.evaluation.names import choose, directions, plan_tasks, score, unit
from continual.forgetting import Score

GSM8K = {
    "alias": "gsm8k",
    "sample_len": 100,
    "exact_match,strict-match": 0.25,
    "exact_match_stderr,strict-match": 0.0435,
    "exact_match,flexible-extract": 0.5,
    "exact_match_stderr,flexible-extract": 0.05,
}
ARC = {"acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.6, "acc_norm_stderr,none": 0.1}
PERPLEXITY = {"word_perplexity,none": 12.5, "word_perplexity_stderr,none": "N/A", "bits_per_byte,none": 0.7}
HIGHER = {"acc": True, "acc_norm": True, "exact_match": True, "word_perplexity": False, "bits_per_byte": False}


@pytest.mark.parametrize(
    ("result", "asked", "key"),
    [
        (ARC, {}, "acc,none"),
        (ARC, {"metric": "acc_norm"}, "acc_norm,none"),
        (GSM8K, {}, "exact_match,strict-match"),
        (GSM8K, {"filter": "flexible-extract"}, "exact_match,flexible-extract"),
        (GSM8K, {"metric": "exact_match", "filter": "flexible-extract"}, "exact_match,flexible-extract"),
        (PERPLEXITY, {"metric": "bits_per_byte"}, "bits_per_byte,none"),
        ({"word_perplexity,none": 1.0}, {}, "word_perplexity,none"),
    ],
)
def test_choice(result, asked, key):
    assert choose("t", result, HIGHER, **asked).key == key


@pytest.mark.parametrize(
    ("result", "asked", "problem"),
    [
        (ARC, {"metric": "f1"}, "`t` has no metric `f1`.*acc .filter none., acc_norm .filter none."),
        (GSM8K, {"filter": "none"}, "`t` has no filter `none`.*strict-match"),
        (GSM8K, {"metric": "acc", "filter": "strict-match"}, "no metric `acc` .filter strict-match."),
        (PERPLEXITY, {}, "needs a `metric`.*word_perplexity"),
        ({"alias": "mmlu"}, {}, "reports no metric"),
        ({"odd,none": 1.0}, {}, "whether more `odd` is better"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_what_there_is(result, asked, problem):
    with pytest.raises(ConfigurationError, match=problem):
        choose("t", result, HIGHER, **asked)


def test_lower_is_better_is_negated_and_an_unknown_error_is_none():
    choice = choose("t", PERPLEXITY, HIGHER, "word_perplexity")
    assert score("t", PERPLEXITY, choice, 7) == Score(-12.5, None, 7, "word_perplexity", "word_perplexity", "none")
    nan = {"acc,none": 0.5, "acc_stderr,none": math.nan}
    assert score("t", nan, choose("t", nan, HIGHER), 1).stderr is None
    with pytest.raises(ContinualError, match="not a finite number"):
        score("t", {"acc,none": math.nan}, choose("t", ARC, HIGHER), 1)


def test_units_say_what_may_be_averaged():
    assert {unit(m) for m in ("acc", "acc_norm", "exact_match", "f1", "inst_level_strict_acc")} == {"accuracy"}
    assert (unit("word_perplexity"), unit("mcc"), unit("bleu")) == ("word_perplexity", "mcc", "bleu")


def test_a_task_is_planned_once_and_with_one_metric():
    a, b = {"name": "a", "metric": None, "filter": None}, {"name": "b", "metric": "acc"}
    assert [task["name"] for task in plan_tasks([a, b, a])] == ["a", "b"]
    with pytest.raises(ConfigurationError, match="`b` is listed with different metrics"):
        plan_tasks([b, {"name": "b", "metric": "acc_norm"}])


def test_the_direction_of_a_group_of_groups_is_its_tasks():
    higher = {"a": {"acc": True}, "b": {"acc": True, "ppl": False}, "c": {"acc": False}}
    members = {"all": ["inner", "b"], "inner": ["a"], "odd": ["a", "c"]}
    assert directions("all", higher, members) == {"acc": True, "ppl": False}
    assert directions("odd", higher, members) == {"acc": None}
    assert directions("a", higher, members) == {"acc": True}


def test_a_group_without_a_number_names_its_members():
    with pytest.raises(ConfigurationError, match=r"for the group `g`; list its members instead: a, b$"):
        choose("g", {"alias": "g"}, {}, members=["a", "b"])
    with pytest.raises(ConfigurationError, match=r"for the task `t`; correct its `metric_list`$"):
        choose("t", {"alias": "t"}, {})
