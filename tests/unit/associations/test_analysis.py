"""Shares of the variance against other implementations and closed forms; who is fragile; what words tell."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import rankdata

from continual.associations.analysis import (
    destructive,
    fragile,
    order_by_factor,
    r_squared,
    similarity,
    variance_explained,
)
from continual.errors import ConfigurationError
from tests.unit.associations.structures import associations_of, low_rank

U = np.array([0.5, 2.0, 1.0, -0.25])
V = np.array([1.0, 0.0, 3.0, -1.0, 0.5, 2.0])


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (1, 9), (9, 1), (5, 5)])
def test_r_squared_is_that_of_numpys_decomposition(shape):
    change = np.random.default_rng(0).normal(0.4, 1.0, shape)
    left, values, right = np.linalg.svd(change, full_matrices=False)
    found = r_squared(change, range(8))
    for rank in range(8):
        rest = change - (left[:, :rank] * values[:rank]) @ right[:rank]
        expected = 1 - np.sum(rest**2) / np.sum((change - change.mean()) ** 2)
        assert found[rank] == pytest.approx(expected, abs=1e-10), f"rank {rank}"


def test_a_product_is_explained_by_one_factor():
    assert r_squared(np.outer(U, V), [1, 2]) == pytest.approx({1: 1.0, 2: 1.0})


def test_the_parts_of_a_product_have_a_closed_form():
    """u_i v_j = means + (u_i - E u)(v_j - E v): what a sum leaves has the variance var(u) var(v)."""
    interaction = np.var(U) * np.var(V)
    total = np.mean(U**2) * np.mean(V**2) - (np.mean(U) * np.mean(V)) ** 2
    found = variance_explained(np.outer(U, V))
    assert found == pytest.approx({"additive": 1 - interaction / total, "multiplicative": 1.0})


def test_the_parts_of_a_sum_have_a_closed_form():
    """u_i + v_j has rank 2: the squares of its singular values are the roots of a quadratic equation."""
    m, n = len(U), len(V)
    ones_u, ones_v = np.array([[U @ U, U.sum()], [U.sum(), m]]), np.array([[n, V.sum()], [V.sum(), V @ V]])
    trace, determinant = np.trace(ones_u @ ones_v), np.linalg.det(ones_u) * np.linalg.det(ones_v)
    smaller = trace / 2 - math.sqrt(trace**2 / 4 - determinant)
    found = variance_explained(U[:, None] + V)
    assert found == pytest.approx(
        {"additive": 1.0, "multiplicative": 1 - smaller / (m * n * (np.var(U) + np.var(V)))}
    )  # fmt: skip


def test_the_additive_part_is_that_of_least_squares():
    change = low_rank(np.random.default_rng(1), 4, 6, 2)
    rows, columns = np.indices(change.shape)
    design = np.hstack([np.eye(4)[rows.ravel()], np.eye(6)[columns.ravel()]])
    fit = design @ np.linalg.lstsq(design, change.ravel(), rcond=None)[0]
    expected = 1 - np.sum((change.ravel() - fit) ** 2) / np.sum((change - change.mean()) ** 2)
    assert variance_explained(change)["additive"] == pytest.approx(expected)


def test_the_mean_of_all_cells_is_worth_a_factor():
    """What the docstring says of the definition: with a large mean, rank 1 is less than the first centred factor."""
    change = 50.0 + np.random.default_rng(2).normal(0, 1, (20, 300))
    centred = np.linalg.svd(change - change.mean(), compute_uv=False) ** 2
    found = r_squared(change, [1, 2])
    assert 0.0 <= found[1] < 0.97 * centred[0] / centred.sum()
    assert found[2] > centred[0] / centred.sum()


def test_equal_changes_have_no_variance_to_explain():
    for explain in (lambda change: r_squared(change, [1]), variance_explained):
        with pytest.raises(ConfigurationError, match=r"all changes are 0\.1"):
            explain(np.full((3, 5), 0.1))


def test_documents_and_tasks_are_sorted_by_their_mean():
    associations = associations_of([[0.0, 3.0, 1.0, 3.0], [1.0, 2.0, 0.0, 2.0], [2.0, 4.0, 2.0, 4.0]])
    documents = fragile(associations, 3)
    assert [(one.name, one.index, one.mean) for one in documents] == [
        ("document1", 1, 3.0), ("document3", 3, 3.0), ("document0", 0, 1.0)
    ]  # fmt: skip
    assert documents[0].stderr == pytest.approx(1.0 / math.sqrt(3))
    tasks = destructive(associations)
    assert [(one.name, one.mean) for one in tasks] == [("task2", 3.0), ("task0", 1.75), ("task1", 1.25)]
    assert tasks[0].stderr == pytest.approx(math.sqrt(4 / 3) / 2)


def test_a_single_task_has_no_error_over_tasks():
    associations = associations_of([[0.0, 3.0]])
    assert fragile(associations, 5)[0].stderr is None
    assert destructive(associations)[0].stderr is not None


@pytest.mark.parametrize("sign_u", [1, -1])
@pytest.mark.parametrize("sign_v", [1, -1])
@pytest.mark.parametrize("shape", [(6, 30), (30, 6)])
def test_the_first_factor_puts_the_most_forgotten_first(sign_u, sign_v, shape):
    random = np.random.default_rng(3)
    u, v = random.uniform(0.1, 2, shape[0]), random.uniform(0.1, 2, shape[1])
    change = sign_u * sign_v * np.outer(u, v) + 1e-6 * random.standard_normal(shape)
    rows, columns = order_by_factor(change)
    assert np.all(np.diff(change.mean(1)[rows]) < 1e-5)
    assert np.all(np.diff(change.mean(0)[columns]) < 1e-5)


def test_without_any_change_the_order_stays():
    rows, columns = order_by_factor(np.zeros((3, 4)))
    assert rows.tolist() == [0, 1, 2]
    assert columns.tolist() == [0, 1, 2, 3]


TASKS = {"task0": ["add 3 4", "add 7 and 9"], "task1": ["the cat sat", "a dog and a cat"]}
DOCUMENTS = ["Add 3 to 9", "the dog sat on a mat", "nothing in common", "a cat", "9 9 9"]


def cosines():
    """TF-IDF written down again: idf = ln((1 + n) / (1 + df)) + 1."""
    words = [re.findall(r"\w+", text.lower()) for text in [*DOCUMENTS, *TASKS["task0"], *TASKS["task1"]]]
    occurrences = Counter(word for text in words for word in set(text))
    vectors = []
    for text in words:
        counts = Counter(text)
        vector = np.array(
            [counts[word] * (math.log((1 + len(words)) / (1 + occurrences[word])) + 1) for word in occurrences]
        )
        vectors.append(vector / np.linalg.norm(vector))
    of_tasks = [np.mean(vectors[5:7], axis=0), np.mean(vectors[7:9], axis=0)]
    return np.array([[task @ one / np.linalg.norm(task) for one in vectors[:5]] for task in of_tasks])


def test_similarity_is_that_of_words():
    change = np.random.default_rng(4).normal(0, 1, (2, 5))
    found = similarity(associations_of(change), TASKS, DOCUMENTS)
    near = cosines().ravel()
    assert found["pearson"] == pytest.approx(np.corrcoef(near, change.ravel())[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef(rankdata(near.round(12)), rankdata(change))[0, 1])
    assert similarity(associations_of(cosines() * 2 + 1), TASKS, DOCUMENTS)["pearson"] == pytest.approx(1.0)


def test_without_variance_there_is_no_correlation():
    nothing = {"pearson": None, "spearman": None}
    assert similarity(associations_of(np.zeros((2, 5))), TASKS, DOCUMENTS) == nothing
    assert similarity(associations_of(np.arange(10).reshape(2, 5)), TASKS, ["x"] * 5) == nothing


@pytest.mark.parametrize(
    ("problem", "tasks", "documents"),
    [
        ("the task `task1` has no text", {"task0": ["a"]}, DOCUMENTS),
        ("there are 4 texts of 5 upstream documents", TASKS, DOCUMENTS[1:]),
        ("there is no word in any text", {"task0": ["!"], "task1": ["?"]}, ["..."] * 5),
    ],
)
def test_missing_texts_are_refused(problem, tasks, documents):
    with pytest.raises(ConfigurationError, match=problem):
        similarity(associations_of(np.arange(10).reshape(2, 5)), tasks, documents)
