"""Logistic factors: the chance that a document is lost, as log-odds of low rank."""

from collections.abc import Callable

import numpy as np

from continual.forgetting.completion.baseline import baseline
from continual.forgetting.completion.factors import leading

RANK = 5
"""Factors, as in Jin & Ren."""
SHIFTS = 1.0
"""Penalty on the squares of rows' and columns' log-odds: that of a normal distribution with variance 1."""
FACTORS = 0.5
"""Penalty on the squares of the factors, as a part of the least that leaves none of independent cells."""
STEPS, CLOSE = 300, 1e-6
"""L-BFGS ends after so many steps, or when one lowers the loss by less than this part of it."""


def logistic(known: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Give the chances of 1 whose log-odds are mu + a_i + b_j + p_i q_j, with RANK numbers in p_i and q_j.

    All cells of the known rows [M, N] of 0 and 1 are fitted by L-BFGS: log loss plus half the squares of a and b times
    SHIFTS, and of p and q times FACTORS sigma (sqrt(M) + sqrt(N)), sigma^2 = share of 1 x share of 0. The latter is a
    bound on the singular values of p q, and its scale what independent cells reach. Jin & Ren have neither a nor b,
    and a ridge of 0.1 with 5000 small steps from small numbers; at the minimum such a ridge fits noise.

    A new row's a and p, in units of their spread over the known rows, are the most probable ones after its K cells if
    they are normal with variance 1; mu, b and q stay.
    """
    mu, a, b, p, q = _fit(known)
    odds = mu + a.mean() + b
    _, spread, turn = np.linalg.svd(p / np.sqrt(len(known)), full_matrices=False)
    design = np.vstack([np.full((1, len(b)), np.std(a)), spread[:, None] * (turn @ q)])

    def complete(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
        return probability(odds + _coefficients(design[:, columns], odds[columns], values) @ design)

    return complete


def probability(odds: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-odds)), without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * odds))


def _fit(known: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mu, a [M], b [N], p [M, RANK] and q [RANK, N]."""
    height, width = known.shape
    sizes = (1, height, width, height * RANK, RANK * width)
    share = (known.sum() + 1.0) / (known.size + 2.0)
    middle, variance = np.log(share / (1.0 - share)), share * (1.0 - share)
    penalty = FACTORS * np.sqrt(variance) * (np.sqrt(height) + np.sqrt(width))
    penalties = np.repeat([SHIFTS, SHIFTS, SHIFTS, penalty, penalty], sizes)

    def parts(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        mu, a, b, p, q = np.split(point, np.cumsum(sizes)[:-1])
        return middle + float(mu[0]), a, b, p.reshape(height, RANK), q.reshape(RANK, width)

    start = np.zeros(sum(sizes))
    *_, p, q = parts(start)  # views
    left, values, right = leading(baseline(known).rest, RANK)
    values = np.maximum(values - penalty, 0.1 * values) / variance  # what is nothing at the start would remain nothing
    p[:, : len(values)], q[: len(values)] = left * np.sqrt(values), np.sqrt(values)[:, None] * right
    # About the roots of the second derivatives. In these units a third of the steps, or fewer, is enough.
    cells = [known.size, width, height, values.sum() / RANK, values.sum() / RANK]
    units = np.sqrt(np.repeat(variance * np.array(cells), sizes) + penalties)

    def loss(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        point = scaled / units
        mu, a, b, p, q = parts(point)
        value, error = _log_loss(mu + a[:, None] + b + p @ q, known)
        slopes = (error.sum(keepdims=True), error.sum(1), error.sum(0), error @ q.T, p.T @ error)
        slope = np.concatenate([one.ravel() for one in slopes]) + penalties * point
        return value + float(penalties @ point**2) / 2, slope / units

    return parts(_minimum(loss, start * units) / units)


def _coefficients(design: np.ndarray, odds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the most probable coefficients [P] of a design [P, K] after values [K]; `odds` [K] are without it."""

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, error = _log_loss(odds + point @ design, values)
        return value + float(point @ point) / 2, design @ error + point

    return _minimum(loss, np.zeros(len(design)))


def _log_loss(odds: np.ndarray, values: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the sum of the log loss of values of 0 and 1, and its derivatives by the log-odds."""
    return float(np.sum(np.logaddexp(0.0, odds) - values * odds)), probability(odds) - values


def _minimum(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize

    options = {"maxiter": STEPS, "ftol": CLOSE}
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)
