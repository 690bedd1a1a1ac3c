"""Which number of an lm-eval result is the score, and the check of task names."""

import math
import subprocess
import sys
import time

import pytest

from continual.errors import ConfigurationError, ContinualError
from continual.evaluation.check import unknown_tasks
from continual.evaluation.names import choose, plan_tasks, score, unit
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


def test_known_and_unknown_task_names():
    assert unknown_tasks(["arc_easy", "blimp_principle_A_case_1", "mmlu", "gsm8k"]) == []
    assert unknown_tasks(["arc_esy", "arc_easy"]) == [("arc_esy", "arc_easy")]
    assert unknown_tasks(["nothing like any task at all"]) == [("nothing like any task at all", None)]
    assert [name for name, _ in unknown_tasks(["ai2_arc"])] == ["ai2_arc"]  # a tag: no score of its own


def test_own_task_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.yaml").write_text("include: base\ntask: 'my_task'  # mine\n")
    (tmp_path / "two.yaml").write_text('"task": "my_other"\r\noutput_type: x\n')
    (tmp_path / "group.yaml").write_text("group: my_group\ntask:\n  - my_task\n  - task: inner\n")
    (tmp_path / "not.txt").write_text("task: hidden\n")
    assert unknown_tasks(["my_task", "my_other", "my_group"], str(tmp_path)) == []
    assert unknown_tasks(["my_tusk"], str(tmp_path)) == [("my_tusk", "my_task")]
    assert [n for n, _ in unknown_tasks(["hidden", "inner"], str(tmp_path))] == ["hidden", "inner"]
    with pytest.raises(ConfigurationError, match=r"evaluate\.include_path"):
        unknown_tasks(["my_task"], str(tmp_path / "absent"))


def test_the_check_is_quick_and_loads_neither_torch_nor_lm_eval():
    """Measured in CPU time, because the machine may be busy: 0.2 s for a name that is nowhere."""
    unknown_tasks(["no_such_task"])
    started = time.process_time()
    unknown_tasks(["no_such_task"])
    assert time.process_time() - started < 0.5
    code = (
        "import sys; from continual.evaluation import check, names; check.unknown_tasks(['arc_easy', 'x']);"
        "assert not {'torch', 'ray', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
