"""Shares of the variance against other implementations and closed forms; who is fragile; what words tell."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from continual.associations.analysis import (
    cosines_of_representations,
    destructive,
    fragile,
    order_by_factor,
    r_squared,
    similarity,
    similarity_of_representations,
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


def vectors(seed, tasks=3, documents=7, width=5):
    """Representations with a large common part, as those of language models."""
    random = np.random.default_rng(seed)
    common = 4 * random.standard_normal(width)
    of_tasks = {f"task{n}": common + random.standard_normal((2 + n, width)) for n in range(tasks)}
    return of_tasks, common + random.standard_normal((documents, width))


def naive_cosines(of_tasks, upstream):
    """cos(h_j, mean over the task's documents of h / |h|), one number after another."""
    rows = []
    for of_task in of_tasks.values():
        parts = [[x / math.sqrt(sum(y * y for y in h)) for x in h] for h in of_task]
        task = [sum(part[k] for part in parts) / len(parts) for k in range(len(parts[0]))]
        lengths = [math.sqrt(sum(x * x for x in h)) * math.sqrt(sum(x * x for x in task)) for h in upstream]
        dots = [sum(x * y for x, y in zip(task, h, strict=True)) for h in upstream]
        rows.append([dot / length for dot, length in zip(dots, lengths, strict=True)])
    return np.array(rows)


def test_similarity_of_representations_is_that_of_cosines():
    of_tasks, upstream = vectors(5)
    change = np.random.default_rng(6).normal(0, 1, (3, 7))
    near = naive_cosines(of_tasks, upstream)
    associations = associations_of(change)
    np.testing.assert_allclose(cosines_of_representations(associations, of_tasks, upstream), near, atol=1e-12)
    found = similarity_of_representations(associations, of_tasks, upstream)
    assert found["pearson"] == pytest.approx(np.corrcoef(near.ravel(), change.ravel())[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef(rankdata(near), rankdata(change))[0, 1])
    assert similarity_of_representations(associations_of(2 * near + 1), of_tasks, upstream) == pytest.approx(
        {"pearson": 1.0, "spearman": 1.0}
    )


@given(st.integers(0, 1000), st.randoms())
def test_neither_the_order_of_documents_nor_their_lengths_matter(seed, random):
    of_tasks, upstream = vectors(seed)
    change = np.random.default_rng(seed).normal(0, 1, (3, 7))
    expected = similarity_of_representations(associations_of(change), of_tasks, upstream)
    order = random.sample(range(7), 7)
    mixed = {task: each[random.sample(range(len(each)), len(each))] * 3 for task, each in of_tasks.items()}
    found = similarity_of_representations(associations_of(change[:, order]), mixed, upstream[order] / 2)
    assert found == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 1000))
def test_no_task_is_nearer_to_the_upstream_documents_than_they_themselves(seed):
    of_tasks, upstream = vectors(seed)
    of_tasks["task1"] = upstream
    near = cosines_of_representations(associations_of(np.zeros((3, 7))), of_tasks, upstream).mean(1)
    assert near[1] == max(near)


def test_representations_that_are_not_finite_are_refused():
    of_tasks, upstream = vectors(7)
    of_tasks["task2"][1, 3] = np.nan
    with pytest.raises(ConfigurationError, match="hidden states are not finite"):
        similarity_of_representations(associations_of(np.zeros((3, 7))), of_tasks, upstream)


def test_missing_representations_are_refused():
    of_tasks, upstream = vectors(8)
    with pytest.raises(ConfigurationError, match="there are 6 texts of 7 upstream documents"):
        similarity_of_representations(associations_of(np.zeros((3, 7))), of_tasks, upstream[:6])
    with pytest.raises(ConfigurationError, match="the task `task2` has no text"):
        similarity_of_representations(associations_of(np.zeros((3, 7))), {**of_tasks, "task2": upstream[:0]}, upstream)


def test_a_text_without_tokens_is_like_nothing():
    of_tasks, upstream = vectors(9)
    upstream[4] = 0.0
    near = cosines_of_representations(associations_of(np.zeros((3, 7))), of_tasks, upstream)
    assert (near[:, 4] == 0).all()
    assert np.isfinite(near).all()
