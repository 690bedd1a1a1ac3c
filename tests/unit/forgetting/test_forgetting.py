"""The figures against brute-force references, their invariances, and what is refused."""

import json
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.errors import ConfigurationError, ContinualError
from continual.forgetting import (
    FIGURES,
    Score,
    StageScores,
    check_units,
    figures,
    last_figures,
    matrix_as_json,
    read_matrix,
)


def matrix_of(table, stderrs=None, units=None):
    """`table`: {task: [R[0], R[1], ...]}; `units`: by task, `accuracy` by default."""
    units = dict.fromkeys(table, "accuracy") if units is None else units
    count = len(next(iter(table.values())))
    return [
        StageScores(
            k,
            "start" if k == 0 else f"stage{k}",
            {t: Score(column[k], stderrs and stderrs[t][k], 100, units.get(t, "")) for t, column in table.items()},
        )
        for k in range(count)
    ]


@st.composite
def sequences(draw):
    """(table, stderrs, stage_tasks, old_tasks): tasks may be listed by several stages, by none, and be old."""
    number = draw(st.integers(1, 4))
    names = ["a", "b", "c", "d", "e"]
    stage_tasks = [draw(st.lists(st.sampled_from(names), max_size=3)) for _ in range(number)]
    old = draw(st.lists(st.sampled_from([*names, "x", "y"]), max_size=3, unique=True))
    tasks = sorted({t for tasks in stage_tasks for t in tasks} | set(old) | {"text"})
    score = st.floats(-5, 5, allow_nan=False)
    error = st.floats(0, 1, allow_nan=False)
    table = {t: draw(st.lists(score, min_size=number + 1, max_size=number + 1)) for t in tasks}
    errors = {t: draw(st.lists(error, min_size=number + 1, max_size=number + 1)) for t in tasks}
    return table, errors, stage_tasks, old


def average(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def reference(table, stage_tasks, old, k):
    """Design.md's definitions, written down once more without any of the code under test."""
    learned = {}
    for task in table:
        for number, tasks in enumerate(stage_tasks, 1):
            if task in tasks:
                learned[task] = number
                break
    now = [t for t in table if t in learned and learned[t] <= k]
    before = [t for t in table if t in learned and learned[t] < k]

    def lost(task, since):
        best = -math.inf
        for stage in range(since, k):
            best = max(best, table[task][stage])
        return best - table[task][k]

    return {
        "average_score": average(table[t][k] for t in now),
        "forgetting": average(lost(t, learned[t]) for t in before),
        "forgetting_old": average(lost(t, 0) for t in old) if k > 0 else None,
        "backward_transfer": average(table[t][k] - table[t][learned[t]] for t in before),
        "forward_transfer": average(table[t][learned[t] - 1] - table[t][0] for t in now if learned[t] >= 2),
        "learning_accuracy": average(table[t][learned[t]] for t in now),
        "forgetting_by_task": {
            t: lost(t, since) if (since := 0 if t in old else learned.get(t, 0)) < k else None for t in table
        },
    }


def close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    return a is b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


@given(sequences())
@settings(max_examples=100, deadline=None)
def test_figures_equal_the_definitions_after_every_stage(sequence):
    table, _, stage_tasks, old = sequence
    found = figures(matrix_of(table), stage_tasks, old)
    for k, entry in enumerate(found["history"]):
        assert entry["stage"] == k
        assert close(
            {name: entry[name] for name in (*FIGURES, "forgetting_by_task")}, reference(table, stage_tasks, old, k)
        )
    assert all(found[name] == found["history"][-1][name] for name in (*FIGURES, "forgetting_by_task", "stderr"))
    assert last_figures(matrix_of(table), stage_tasks, old) == {k: v for k, v in found.items() if k != "history"}


@given(sequences())
@settings(max_examples=60, deadline=None)
def test_forgetting_is_never_less_than_negated_backward_transfer(sequence):
    table, _, stage_tasks, old = sequence
    for entry in figures(matrix_of(table), stage_tasks, old)["history"]:
        assert (entry["forgetting"] is None) == (entry["backward_transfer"] is None)
        if entry["forgetting"] is not None:
            assert entry["forgetting"] >= -entry["backward_transfer"] - 1e-12


@given(sequences(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_of_entries_tasks_and_names_changes_nothing(sequence, shuffler):
    table, errors, stage_tasks, old = sequence
    plain = figures(matrix_of(table, errors), stage_tasks, old)
    items = list(table.items())
    shuffler.shuffle(items)
    matrix = matrix_of(dict(items), errors)
    shuffler.shuffle(matrix)
    mixed = [shuffler.sample(tasks, len(tasks)) for tasks in stage_tasks]
    again = figures(matrix, mixed, shuffler.sample(old, len(old)))
    assert all(close(plain[name], again[name]) for name in (*FIGURES, "forgetting_by_task", "stderr"))


@given(sequences(), st.floats(-3, 3), st.floats(0.1, 4))
@settings(max_examples=40, deadline=None)
def test_differences_ignore_a_shift_and_everything_follows_the_scale(sequence, shift, scale):
    table, _, stage_tasks, old = sequence
    plain = figures(matrix_of(table), stage_tasks, old)
    moved_table = {t: [shift + scale * v for v in column] for t, column in table.items()}
    moved = figures(matrix_of(moved_table), stage_tasks, old)
    for name in FIGURES:
        offset = shift if name in ("average_score", "learning_accuracy") else 0.0
        assert close(moved[name], None if plain[name] is None else offset + scale * plain[name])


@given(sequences())
@settings(max_examples=40, deadline=None)
def test_nothing_is_ever_nan_and_all_of_it_is_json(sequence):
    table, errors, stage_tasks, old = sequence
    found = figures(matrix_of(table, errors), stage_tasks, old)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_standard_errors_match_a_simulation():
    """Scores with known independent errors, far enough apart that the maximum always picks the same stage."""
    table = {"a": [0.1, 0.9, 0.5, 0.4], "b": [0.0, 0.2, 0.8, 0.6], "c": [0.1, 0.1, 0.3, 0.7]}
    errors = {t: [0.004 * (1 + i + k) for k in range(4)] for i, t in enumerate(table)}
    stages = [["a"], ["b"], ["c"]]
    exact = figures(matrix_of(table, errors), stages, [])
    draw, runs = random.Random(0), 1500
    samples: dict[str, list[float]] = {name: [] for name in FIGURES if exact[name] is not None}
    for _ in range(runs):
        noisy = {t: [v + draw.gauss(0, e) for v, e in zip(table[t], errors[t], strict=True)] for t in table}
        result = figures(matrix_of(noisy), stages, [])
        for name, values in samples.items():
            values.append(result[name])
    for name, values in samples.items():
        center = sum(values) / runs
        spread = math.sqrt(sum((v - center) ** 2 for v in values) / (runs - 1))
        assert spread == pytest.approx(exact["stderr"][name], rel=0.08), name


def test_standard_error_by_hand_and_unknown_where_one_is_unknown():
    table = {"a": [0.0, 1.0, 0.4], "b": [0.0, 0.1, 1.0]}
    errors: dict[str, list[float | None]] = {"a": [0.01, 0.03, 0.04], "b": [0.01, 0.02, 0.05]}
    found = figures(matrix_of(table, errors), [["a"], ["b"]], [])
    assert found["stderr"]["forgetting"] == pytest.approx(0.05)
    assert found["stderr"]["average_score"] == pytest.approx(math.hypot(0.04, 0.05) / 2)
    assert found["stderr"]["forgetting_by_task"] == {"a": pytest.approx(0.05), "b": None}
    errors["a"][2] = None
    partly = figures(matrix_of(table, errors), [["a"], ["b"]], [])
    assert partly["stderr"]["forgetting"] is None
    assert partly["forgetting"] == pytest.approx(0.6)
    assert partly["stderr"]["learning_accuracy"] == pytest.approx(math.hypot(0.03, 0.05) / 2)


def test_the_maximum_looks_back_over_all_stages_since_learning():
    table = {"a": [0.9, 0.5, 0.8, 0.3], "b": [0, 0, 1, 1], "c": [0, 0, 0, 1]}
    found = figures(matrix_of(table), [["a"], ["b"], ["c"]], [])
    # 0.8 after stage 2; not 0.9, which was before stage 1 learned it.
    assert found["forgetting_by_task"]["a"] == pytest.approx(0.5)
    assert found["forgetting"] == pytest.approx(0.25)
    as_old = figures(matrix_of(table), [["b"], ["c"]], ["a"])
    assert as_old["forgetting_old"] == as_old["forgetting_by_task"]["a"] == pytest.approx(0.6)


def test_one_stage_has_nothing_to_forget_but_old_tasks():
    table = {"a": [0.0, 1.0], "old": [0.8, 0.5]}
    found = figures(matrix_of(table), [["a"]], [])
    assert found["forgetting"] is found["backward_transfer"] is found["forward_transfer"] is None
    assert found["forgetting_old"] is None
    assert found["average_score"] == 1.0 == found["learning_accuracy"]
    assert figures(matrix_of(table), [["a"]], ["old"])["forgetting_old"] == pytest.approx(0.3)


def test_before_any_stage_every_figure_is_null():
    table = {"a": [0.5], "old": [0.5]}
    found = figures(matrix_of(table), [["a"]], ["old"])
    assert all(found[name] is None for name in FIGURES)
    assert set(found["forgetting_by_task"].values()) == {None}
    unscored = figures([], [["a"]], ["old"])
    assert all(unscored[name] is None for name in FIGURES)
    assert unscored["history"] == []


def test_a_task_of_two_stages_is_learned_at_the_first():
    table = {"a": [0.0, 1.0, 0.2, 0.9], "b": [0.0, 0.0, 1.0, 1.0]}
    found = figures(matrix_of(table), [["a"], ["b"], ["a"]], [])
    assert found["forgetting_by_task"]["a"] == pytest.approx(0.1)
    assert found["learning_accuracy"] == pytest.approx(1.0)


def test_texts_are_in_no_mean_but_their_loss_is_told():
    table = {"a": [0.0, 1.0], "story": [-1.3, -3.0]}
    found = figures(matrix_of(table, units={"a": "accuracy"}), [["a"]], [])
    assert found["forgetting_by_task"]["story"] == pytest.approx(1.7)
    assert found["average_score"] == 1.0


def test_mixed_units_are_refused():
    table = {"a": [0.0, 1.0, 1.0], "b": [0.0, 1.0, 1.0]}
    with pytest.raises(ConfigurationError, match=r"`a` \(accuracy\) and `b` \(word_perplexity\) would mix units"):
        figures(matrix_of(table, units={"a": "accuracy", "b": "word_perplexity"}), [["a"], ["b"]], [])
    with pytest.raises(ConfigurationError, match=r"evaluate\.old_tasks"):
        check_units([], ["a", "b"], {"a": "accuracy", "b": "bleu"})
    check_units([["a"]], ["b"], {"a": "accuracy", "b": "bleu"})


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_score_that_is_missing_or_not_finite_is_an_error(value):
    matrix = matrix_of({"a": [0.0, 1.0]})
    matrix[1].scores["a"] = value if value is None else Score(value, unit="accuracy")
    with pytest.raises(ContinualError, match=r"task `a` .*after stage 1 \(stage1\)"):
        figures(matrix, [["a"]], [])


def test_a_missing_column_stage_or_unit_is_an_error():
    matrix = matrix_of({"a": [0.0, 1.0]})
    with pytest.raises(ContinualError, match="task `b` has no score after stage 0"):
        figures(matrix, [["a"]], ["b"])
    with pytest.raises(ContinualError, match="holds 1"):
        figures(matrix[1:], [["a"]], [])
    with pytest.raises(ContinualError, match="no unit"):
        figures(matrix_of({"a": [0.0, 1.0]}, units={}), [["a"]], [])
    matrix[1].scores["a"] = Score(1.0, math.nan, unit="accuracy")
    with pytest.raises(ContinualError, match="not a finite number"):
        figures(matrix, [["a"]], [])


def test_a_score_is_the_same_after_a_file():
    text = Score(-1.5, 0.1, 7, "nats/token", "nll", "none", tokens=90)
    task = Score(0.5, None, 7, "accuracy", "acc", "none")
    for score in (text, task):
        assert Score(**json.loads(json.dumps(score.as_json()))) == score
    assert list(text.as_json()) == ["score", "stderr", "n", "unit", "metric", "filter", "tokens"]
    assert list(task.as_json()) == ["score", "stderr", "n", "unit", "metric", "filter"]


def test_the_matrix_takes_the_newest_scores_of_each_stage_in_order():
    def event(stage, score):
        return {"event": "scored", "stage": stage, "name": f"s{stage}", "scores": {"a": Score(score).as_json()}}

    matrix = read_matrix([event(1, 0.1), event(0, 0.2), event(1, 0.3)])
    assert matrix == [StageScores(0, "s0", {"a": Score(0.2)}), StageScores(1, "s1", {"a": Score(0.3)})]
    assert matrix_as_json(matrix)[1] == {
        "stage": 1, "name": "s1", "scores": {"a": {"score": 0.3, "stderr": None, "n": None}},
    }  # fmt: skip
    assert read_matrix(matrix_as_json(matrix)) == matrix


def test_loads_neither_torch_nor_ray():
    code = "import sys, continual.forgetting; assert not {'torch', 'ray', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
