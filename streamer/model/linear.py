"""Small dense algebra for the factor model, written out for numba: Gram matrices and ridge systems.

Symmetric matrices f64[k, k] are worked on in their lower half. Cholesky is written out because a call into LAPACK costs
more than the work at these sizes. Sums run in a fixed order, without fast-math.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
Slots = NDArray[np.int32]


@njit(cache=True, fastmath={"reassoc"})  # the order of this sum decides nothing, and a free one is five times as fast
def usable(row):  # type: ignore[no-untyped-def]
    """Whether all numbers of a vector are finite, and it is short enough (1e38) for float32 to hold it."""
    total = 0.0
    for x in row:
        total += np.float64(x) * np.float64(x)
    return total < 1e76


@njit(cache=True)
def dot(p, q):  # type: ignore[no-untyped-def]
    """Σ p·q in f64: four sums side by side, as one would wait for its own last digit at every number. p is f64[k]."""
    first = second = third = fourth = 0.0
    even = len(p) // 4 * 4
    for a in range(0, even, 4):
        first += p[a] * q[a]
        second += p[a + 1] * q[a + 1]
        third += p[a + 2] * q[a + 2]
        fourth += p[a + 3] * q[a + 3]
    for a in range(even, len(p)):
        first += p[a] * q[a]
    return (first + second) + (third + fourth)


@njit(cache=True)
def add_outer(matrix, row, amount):  # type: ignore[no-untyped-def]
    """matrix += amount · row rowᵀ, its lower half only."""
    for a in range(len(row)):
        x = amount * row[a]
        for b in range(a + 1):
            matrix[a, b] += x * row[b]


@njit(cache=True)
def _mirror(matrix):  # type: ignore[no-untyped-def]
    for a in range(len(matrix)):
        for b in range(a):
            matrix[b, a] = matrix[a, b]


@njit(cache=True, nogil=True)
def gram(item_vectors: Floats) -> Matrix:
    """QᵀQ f64[k, k] of item vectors f32[n, k]. Cost: 70 ns an item at k 32.

    Whether items that nobody took yet are in it makes no difference that could be measured.
    """
    total = np.zeros((item_vectors.shape[1], item_vectors.shape[1]))
    for i in range(len(item_vectors)):
        if usable(item_vectors[i]):
            add_outer(total, item_vectors[i], 1.0)
    _mirror(total)
    return total


@njit(cache=True)
def factor(matrix, floor):  # type: ignore[no-untyped-def]
    """Cholesky in place: L below the diagonal, 1/L_ii on it. Row by row, so that the inner loop runs along memory.

    `floor` is the ridge: no pivot of a matrix ≥ ridge·I is smaller. Rounding, or weights under c0 of items that are not
    in the Gram matrix, could make one too small: it is held there.
    """
    for i in range(len(matrix)):
        for j in range(i):
            s = matrix[i, j]
            for m in range(j):
                s -= matrix[i, m] * matrix[j, m]
            matrix[i, j] = s * matrix[j, j]
        s = matrix[i, i]
        for m in range(i):
            s -= matrix[i, m] * matrix[i, m]
        matrix[i, i] = 1.0 / math.sqrt(max(s, floor))


@njit(cache=True)
def solve(lower, b):  # type: ignore[no-untyped-def]
    """b := (L Lᵀ)⁻¹ b in place, L as `factor` leaves it."""
    for i in range(len(b)):
        s = b[i]
        for m in range(i):
            s -= lower[i, m] * b[m]
        b[i] = s * lower[i, i]
    for i in range(len(b) - 1, -1, -1):
        b[i] *= lower[i, i]
        for m in range(i):
            b[m] -= b[i] * lower[i, m]


@njit(cache=True)
def prior(gram_matrix, c0, reg, matrix):  # type: ignore[no-untyped-def]
    """matrix := c0·QᵀQ + reg·I, its lower half."""
    for a in range(len(matrix)):
        for b in range(a + 1):
            matrix[a, b] = c0 * gram_matrix[a, b]
        matrix[a, a] += reg
