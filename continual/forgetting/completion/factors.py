"""The first singular vectors of a matrix that is much longer than high, or the reverse."""

import numpy as np


def squares(matrix: np.ndarray) -> np.ndarray:
    """Return the squares of all singular values of a matrix [M, N], the largest first [min(M, N)].

    They come from the Gram matrix of the shorter side, which takes M x M x N steps and no second matrix of that size;
    each is exact to 1e-16 of their sum.
    """
    return np.asarray(np.clip(np.linalg.eigvalsh(_gram(matrix)), 0.0, None)[::-1])


def leading(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first `rank` left singular vectors [M, r], singular values [r] and right vectors [r, N] of a matrix.

    r is smaller where the matrix has fewer. As in `squares` they come from the Gram matrix of the shorter side: values
    below 1e-7 of the first are rounding, and are left out.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = leading(matrix.T, rank)
        return left.T, values, right.T
    found, left = np.linalg.eigh(_gram(matrix))
    values = np.sqrt(np.clip(found[::-1], 0.0, None))[:rank]
    count = int(np.sum(values > 1e-7 * values[0]))
    left, values = left[:, ::-1][:, :count], values[:count]
    return left, values, (left / values).T @ matrix


def _gram(matrix: np.ndarray) -> np.ndarray:
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
