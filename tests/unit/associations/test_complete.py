"""Models that complete a row: what they recover, and each formula against one that is written down again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from continual.errors import ConfigurationError
from continual.forgetting.completion import logistic
from continual.forgetting.completion.baseline import baseline
from continual.forgetting.completion.complete import MODELS, PENALTIES, probes, ridge
from tests.unit.associations.structures import additive, chances, low_rank

REAL = [name for name, model in MODELS.items() if not model.probability]


def unseen_error(name, matrix, columns):
    """Root mean square error over the unseen columns of the first row, completed from the others."""
    row = MODELS[name](matrix[1:], columns, matrix[0, columns])
    return np.sqrt(np.mean(np.delete(row - matrix[0], columns) ** 2))


@pytest.mark.parametrize("name", ["additive", "neighbours", "factors"])
@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_an_additive_matrix_is_completed_exactly(name, tasks):
    matrix = additive(np.random.default_rng(0), tasks, 50)
    assert unseen_error(name, matrix, probes(5, 50, 0)) < 1e-6


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_factors_are_found_under_noise(rank):
    """What is left is little more than the noise of the unseen cells, and much less than the other models leave."""
    random, noise = np.random.default_rng(rank), 0.1
    errors: dict[str, list[float]] = {"factors": [], "additive": [], "neighbours": []}
    for draw in range(5):
        matrix = low_rank(random, 30, 500, rank) + noise * random.standard_normal((30, 500))
        for name, found in errors.items():
            found.append(unseen_error(name, matrix, probes(40, 500, draw)))
    assert noise * 0.9 < np.mean(errors["factors"]) < noise * 1.4
    assert np.mean(errors["factors"]) < 0.5 * np.mean(errors["neighbours"]) < 0.5 * np.mean(errors["additive"])


def test_without_structure_no_model_does_much_worse_than_the_best_guess():
    random = np.random.default_rng(0)
    for name in ("additive", "neighbours", "factors"):
        errors = [unseen_error(name, random.standard_normal((20, 300)), probes(30, 300, draw)) for draw in range(20)]
        assert np.mean(errors) < 1.05, name  # 1 is what 0 leaves


def test_the_baseline_is_a_ridge_regression():
    """mu + b_j with the penalty E / B on b_j^2, and a with `cell` / `variance` on a^2, by least squares."""
    random = np.random.default_rng(1)
    known, width = additive(random, 6, 9) + 0.8 * random.standard_normal((6, 9)), 9
    base, rows, columns = baseline(known), known.mean(1), known.mean(0)
    rest = known - rows[:, None] - columns + known.mean()
    e = np.sum(rest**2) / (5 * 8)
    b = np.var(columns, ddof=1) - e / 6
    design = np.vstack([np.tile(np.eye(width), (6, 1)), np.sqrt(e / b) * np.eye(width)])
    target = np.concatenate([(known - rows[:, None]).ravel(), np.zeros(width)])
    effects = np.linalg.lstsq(design, target, rcond=None)[0]
    assert base.columns == pytest.approx(known.mean() + effects)
    assert base.rest == pytest.approx(rest)
    places, values = np.array([1, 4, 5]), np.array([2.0, 0.5, 3.0])
    penalty = base.cell / base.variance(places, values)
    shift = np.linalg.lstsq(
        np.append(np.ones(3), np.sqrt(penalty))[:, None], np.append(values - base.columns[places], 0.0), rcond=None
    )[0]
    assert base.shift(places, values) == pytest.approx(shift[0])


def test_the_variance_of_the_parts_is_estimated_without_bias():
    random, found = np.random.default_rng(2), []
    for _ in range(2000):
        base = baseline(2.0 * random.standard_normal((8, 1)) + 1.5 * random.standard_normal((8, 12)))
        found.append((base.row / (1 + 1 / 8), np.sum(base.rest**2) / (7 * 11)))
    assert np.mean(found, axis=0) == pytest.approx([4.0, 2.25], rel=0.05)


def test_neighbours_are_weighted_by_their_distance():
    random = np.random.default_rng(3)
    known, columns, values = random.standard_normal((50, 20)), np.array([0, 3, 7]), np.array([1.0, -1.0, 0.5])
    base = baseline(known)
    row = base.columns + base.shift(columns, values)
    scale = np.mean([base.rest[i, j] ** 2 for i in range(50) for j in range(20)])
    similar = []
    for i in range(50):
        distance = np.mean([(base.rest[i, j] - (v - row[j])) ** 2 for j, v in zip(columns, values, strict=True)])
        similar.append((1 / (distance / scale + 1), i))
    nearest = sorted(similar, reverse=True)[:40]
    expected = row + sum(w * base.rest[i] for w, i in nearest) / sum(w for w, _ in nearest)
    assert MODELS["neighbours"](known, columns, values) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(12, 4), (3, 5)])
def test_the_penalty_of_a_ridge_regression_is_the_best_on_cells_left_out(shape):
    random = np.random.default_rng(4)
    design, values = random.standard_normal(shape), random.standard_normal(shape[0])
    largest = np.linalg.svd(design, compute_uv=False)[0] ** 2

    def fit(rows, penalty):
        x = design[rows]
        return np.linalg.solve(x.T @ x + penalty * largest * np.eye(shape[1]), x.T @ values[rows])

    def error(penalty):
        others = [np.delete(np.arange(shape[0]), place) for place in range(shape[0])]
        return sum((values[k] - design[k] @ fit(rows, penalty)) ** 2 for k, rows in enumerate(others))

    best = min(PENALTIES[1:], key=error)
    nothing = np.sum(values**2) <= error(best)
    expected = np.zeros(shape[1]) if nothing else fit(np.arange(shape[0]), best)
    assert ridge(design, values) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", REAL)
def test_the_unit_of_the_changes_does_not_matter(name):
    random = np.random.default_rng(5)
    matrix = low_rank(random, 8, 60, 2) + 0.3 * random.standard_normal((8, 60))
    columns = probes(10, 60, 0)
    row = MODELS[name](matrix[1:], columns, matrix[0, columns])
    assert MODELS[name](0.01 * matrix[1:], columns, 0.01 * matrix[0, columns]) == pytest.approx(0.01 * row)


def test_the_baselines_know_of_the_row_or_of_the_others_alone():
    known, columns, values = np.arange(30.0).reshape(3, 10), np.array([1, 2]), np.array([5.0, 6.0])
    assert MODELS["mean"](known, columns, values).tolist() == [5.5] * 10
    chance = MODELS["random"](known, columns, values)
    assert set(chance) <= set(known.ravel())
    assert len(set(chance)) == 10, "a cell is drawn twice"
    assert np.array_equal(chance, MODELS["random"](known, columns, -values))
    assert not np.array_equal(chance, MODELS["random"](known, columns + 1, values))


def test_logistic_factors_are_found():
    """Ranks of unseen documents are nearly as good as with the true chances, and chances are calibrated."""
    random = np.random.default_rng(6)
    areas: dict[str, list[float]] = {"true": [], "logistic": [], "additive": []}
    stated, lost = [], []
    for draw in range(4):
        chance = chances(random, 40, 500)
        cells = (random.random(chance.shape) < chance).astype(float)
        columns = probes(60, 500, draw)
        row, plain = (MODELS[name](cells[1:], columns, cells[0, columns]) for name in ("logistic", "additive"))
        unseen = np.delete(np.arange(500), columns)
        for name, values in (("true", chance[0]), ("logistic", row), ("additive", plain)):
            areas[name].append(roc_auc_score(cells[0, unseen], values[unseen]))
        stated.append(row[unseen].mean())
        lost.append(cells[0, unseen].mean())
        assert np.all((row > 0) & (row < 1))
    assert np.mean(areas["logistic"]) > np.mean(areas["true"]) - 0.05
    assert np.mean(areas["logistic"]) > np.mean(areas["additive"])
    assert np.mean(stated) == pytest.approx(np.mean(lost), abs=0.03)


def test_the_coefficients_of_a_new_row_are_those_of_scikit_learn():
    random = np.random.default_rng(7)
    design, values = random.standard_normal((3, 25)), (random.random(25) < 0.4).astype(float)
    expected = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8).fit(design.T, values).coef_[0]
    assert logistic._coefficients(design, np.zeros(25), values) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_twice_the_penalty_leaves_no_factors_of_independent_cells(share, monkeypatch):
    """What the unit of FACTORS is: of cells without structure, 1 leaves no factor; a tenth of it fits them."""
    cells = (np.random.default_rng(8).random((20, 200)) < share).astype(float)

    def size(penalty):
        monkeypatch.setattr(logistic, "FACTORS", penalty)
        _, _, _, p, q = logistic._fit(cells)
        return np.std(p @ q)

    assert size(1.0) < 0.1
    assert size(0.1) > 1.0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_cells_that_are_all_the_same_have_a_chance(value):
    row = MODELS["logistic"](np.full((5, 40), value), np.arange(4), np.array([0.0, 0.0, 1.0, 0.0]))
    assert np.all((row > 0) & (row < 1))
    assert abs(row - value).max() < 0.05


def test_a_long_matrix_is_completed():
    """20 tasks and 140,000 documents, as many as Jin & Ren have; no model may need a matrix of documents squared."""
    random = np.random.default_rng(9)
    matrix = np.outer(random.uniform(0.5, 1.5, 21), random.exponential(1.0, 140_000))
    columns = probes(30, 140_000, 0)
    for name in REAL:
        row = MODELS[name](matrix[1:], columns, matrix[0, columns])
        assert row.shape == (140_000,)
        assert np.isfinite(row).all()
    assert unseen_error("factors", matrix, columns) < 1e-3


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 2**32))
def test_probes_are_different_documents(count, more, seed):
    found = probes(count, count + more, seed)
    assert len(found) == len(set(found.tolist())) == count
    assert set(found.tolist()) <= set(range(count + more))
    assert np.array_equal(found, probes(count, count + more, seed))


def test_every_document_is_as_often_a_probe():
    times = sum(np.bincount(probes(3, 10, seed), minlength=10) for seed in range(2000))
    assert times == pytest.approx(np.full(10, 600), abs=5 * np.sqrt(2000 * 0.3 * 0.7))


@pytest.mark.parametrize("count", [0, -1, 11])
def test_more_probes_than_documents_are_refused(count):
    with pytest.raises(ConfigurationError, match=f"probes: {count} of 10 documents cannot be drawn; give 1 to 10"):
        probes(count, 10, 0)
