"""Errors that are paired by document, against closed forms written down again; what they must not depend on."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.forgetting import Score, StageScores, figures
from continual.forgetting import outcomes as behind
from continual.forgetting.outcomes import Outcomes, stderr_of
from continual.forgetting.paired import FOLDS, Paired, cross_fitted
from continual.forgetting.significance import holm, one_sided


def outcomes_of(score, parts):
    """Return the outcomes of a score that its documents add up to."""
    found = behind.outcomes_of(score, parts)
    assert found is not None
    return found


def right_or_wrong(answers, name="d"):
    """Score and outcomes of a task from a list of 0 and 1, one per document."""
    values = {f"{name}{number:04d}": (float(answer), 1.0) for number, answer in enumerate(answers)}
    score = Score(sum(answers) / len(answers), unit="accuracy")
    return score, outcomes_of(score, [values])


def matrix_of(answers_by_task):
    """Matrix and outcomes of {task: [answers after stage 0, 1, ...]}."""
    stages = len(next(iter(answers_by_task.values())))
    rows, outcomes = [], {}
    for stage in range(stages):
        scores = {}
        for task, answers in answers_by_task.items():
            scores[task], outcomes[stage, task] = right_or_wrong(answers[stage], task)
        rows.append(StageScores(stage, f"s{stage}", scores))
    return rows, outcomes


answers = st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=2, max_size=40)


@given(answers)
@settings(max_examples=80, deadline=None)
def test_the_error_of_a_difference_is_that_of_the_differences(documents):
    columns = [list(column) for column in zip(*documents, strict=True)]
    matrix, outcomes = matrix_of({"a": columns})
    found = figures(matrix, [["a"], []], [], outcomes)
    changes = [after - before for _, before, after in documents]
    mean = sum(changes) / len(changes)
    expected = math.sqrt(sum((c - mean) ** 2 for c in changes) / (len(changes) - 1) / len(changes))
    assert found["backward_transfer"] == pytest.approx(mean)
    assert found["stderr"]["backward_transfer"] == pytest.approx(expected, abs=1e-12)
    assert found["stderr"]["forgetting"] == pytest.approx(expected, abs=1e-12)  # one stage only to be the best
    assert found["corrected"]["forgetting"] == pytest.approx(-mean)


@given(answers)
@settings(max_examples=80, deadline=None)
def test_forgotten_less_gained_is_the_loss(documents):
    columns = [list(column) for column in zip(*documents, strict=True)]
    matrix, outcomes = matrix_of({"a": columns})
    found = figures(matrix, [[], []], ["a"], outcomes)
    assert found["forgotten"]["a"] - found["gained"]["a"] == pytest.approx(found["forgetting_by_task"]["a"], abs=1e-12)
    best = max(range(2), key=lambda k: (sum(columns[k]), -k))
    expected = sum(b and not n for b, n in zip(columns[best], columns[2], strict=True)) / len(documents)
    assert found["forgotten"]["a"] == pytest.approx(expected)


def test_the_error_of_a_score_is_the_sample_error_of_its_mean():
    values = [1, 0, 0, 1, 1, 1, 0, 1]
    _, outcomes = right_or_wrong(values)
    assert stderr_of(outcomes.influence) == pytest.approx(np.std(values, ddof=1) / math.sqrt(8))


def test_a_text_is_a_ratio_over_its_documents():
    nats, tokens = [30.0, 8.0, 50.0], [10.0, 2.0, 30.0]
    ratio = sum(nats) / sum(tokens)
    parts = [{str(d): (-n, t) for d, (n, t) in enumerate(zip(nats, tokens, strict=True))}]
    outcomes = outcomes_of(Score(-ratio), parts)
    squares = sum((n - ratio * t) ** 2 for n, t in zip(nats, tokens, strict=True))
    assert stderr_of(outcomes.influence) == pytest.approx(math.sqrt(3 / 2 * squares) / sum(tokens))
    assert outcomes.right is None
    # The bootstrap, an independent way to the error of a ratio, agrees where there are many documents.
    draw = np.random.default_rng(1)
    size = 400
    lengths = draw.integers(5, 60, size).astype(float)
    losses = lengths * draw.normal(2.0, 0.5, size)
    many = outcomes_of(Score(-losses.sum() / lengths.sum()), [{str(d): (-losses[d], lengths[d]) for d in range(size)}])
    places = draw.integers(0, size, (4000, size))
    drawn = losses[places].sum(1) / lengths[places].sum(1)
    assert stderr_of(many.influence) == pytest.approx(drawn.std(ddof=1), rel=0.05)


def test_members_of_a_group_count_by_size_or_equally_whichever_gives_its_score():
    parts = [{"a/0": (1.0, 1.0), "a/1": (0.0, 1.0)}, {f"b/{n}": (1.0, 1.0) for n in range(6)}]
    by_size, equal = outcomes_of(Score(7 / 8), parts), outcomes_of(Score(3 / 4), parts)
    assert by_size.weight == pytest.approx([1 / 8] * 8)
    assert equal.weight == pytest.approx([1 / 4] * 2 + [1 / 12] * 6)
    assert behind.outcomes_of(Score(0.8), parts) is None, "no way to weigh the documents gives this score"


def test_lower_is_better_turns_the_sign():
    outcomes = outcomes_of(Score(-2.0), [{"x": (1.0, 1.0), "y": (3.0, 1.0)}])
    assert list(outcomes.influence) == pytest.approx([0.5, -0.5])
    assert outcomes.right is None


def test_scores_of_other_documents_are_not_paired():
    matrix, outcomes = matrix_of({"a": [[1, 1, 0, 1], [1, 0, 0, 1]]})
    _, outcomes[1, "a"] = right_or_wrong([1, 0, 0, 1], "elsewhere")
    matrix[0].scores["a"] = Score(0.75, 0.1, unit="accuracy")
    matrix[1].scores["a"] = Score(0.5, 0.2, unit="accuracy")
    found = figures(matrix, [[]], ["a"], outcomes)
    assert found["paired"] == []
    assert found["stderr"]["forgetting_old"] == pytest.approx(math.hypot(0.1, 0.2))
    assert found["corrected"]["forgetting_old"] is None
    assert found["forgotten"] == {}


def test_tasks_add_their_errors_as_independent_ones():
    generator = random.Random(3)
    table = {task: [[generator.randint(0, 1) for _ in range(50)] for _ in range(4)] for task in "abc"}
    matrix, outcomes = matrix_of(table)
    found = figures(matrix, [["a"], ["b"], ["c"]], [], outcomes)
    by_task = found["stderr"]["forgetting_by_task"]
    assert found["stderr"]["forgetting"] == pytest.approx(math.hypot(by_task["a"], by_task["b"]) / 2)
    corrected = found["corrected"]["forgetting_by_task"]
    assert found["corrected"]["forgetting"] == pytest.approx((corrected["a"] + corrected["b"]) / 2)
    [low, high] = found["interval"]["forgetting"]
    assert (low + high) / 2 == pytest.approx(found["corrected"]["forgetting"])
    now = [np.std(columns[3], ddof=1) / math.sqrt(50) for columns in table.values()]
    assert found["stderr"]["average_score"] == pytest.approx(math.hypot(*now) / 3)


def test_the_order_of_documents_changes_nothing():
    generator = random.Random(0)
    columns = [[generator.randint(0, 1) for _ in range(60)] for _ in range(5)]
    values = [{f"n{d}": (float(v), 1.0) for d, v in enumerate(column)} for column in columns]
    scores = [sum(column) / 60 for column in columns]
    order = list(range(60))
    generator.shuffle(order)
    mixed = [{f"n{d}": part[f"n{d}"] for d in order} for part in values]
    losses = [
        Paired(scores, [outcomes_of(Score(s), [part]) for s, part in zip(scores, parts, strict=True)]).loss(0, 4)
        for parts in (values, mixed)
    ]
    assert losses[0] == losses[1]


def test_cross_fitting_by_hand():
    # Two folds, two earlier stages and the present: on fold 0 the first stage is better, on fold 1 the second.
    scores = np.array([[[0.9, 0.2, 0.5], [0.3, 0.8, 0.4]]])
    # Fold 0 takes the stage that is best on fold 1 (the second: 0.2 - 0.5), fold 1 the first (0.3 - 0.4).
    assert cross_fitted(scores)[0] == pytest.approx((-0.3 - 0.1) / 2)


def test_few_documents_are_not_split():
    """Nothing is corrected where every fold would have one document or none, unless there is nothing to choose from."""
    matrix, outcomes = matrix_of({"a": [[1, 0, 1], [1, 1, 0], [0, 0, 1]]})
    assert len(outcomes[0, "a"].documents) < 2 * FOLDS
    found = figures(matrix, [[], []], ["a"], outcomes)
    assert found["forgetting_old"] == pytest.approx(1 / 3)
    assert found["corrected"]["forgetting_old"] is None
    alone = figures(matrix[:2], [[]], ["a"], outcomes)
    assert alone["corrected"]["forgetting_old"] == pytest.approx(alone["forgetting_old"])


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "d": None,
    }  # fmt: skip
    assert one_sided(1.6448536, 1.0) == pytest.approx(0.05, abs=1e-7)
    assert one_sided(0.5, None) is None
    assert (one_sided(0.5, 0.0), one_sided(0.0, 0.0)) == (0.0, 1.0)


def test_a_loss_is_certain_only_after_the_correction_for_all_tasks():
    """One document in 20 lost, p = 0.16; eight of 20 lost is certain, alone and among 30 tasks without a loss."""
    kept, few, many = [1] * 20, [1] * 19 + [0], [1] * 12 + [0] * 8
    table = {"few": [kept, few], "many": [kept, many]} | {f"t{n}": [kept, kept] for n in range(30)}
    matrix, outcomes = matrix_of(table)
    found = figures(matrix, [[]], list(table), outcomes)
    assert found["fell"] == ["many"]
    assert found["p_value"]["few"] == pytest.approx(1.0)


def test_outcomes_are_what_they_say():
    outcome = Outcomes(("a",), np.zeros(1), np.ones(1), None)
    assert stderr_of(outcome.influence) is None
