"""What every row is held against: counting, and plain stochastic factorisation, over the same events.

ISGD (Vinagre, Jorge and Gama 2014, "Fast incremental matrix factorization for recommendation with positive-only
feedback"): one step an event towards 1, p += η(e·q - λp), q += η(e·p - λq), e = 1 - p·q.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

RANK: Final = 32
STEP: Final = 0.05
REG: Final = 0.01
FACTOR_SPREAD: Final = 0.1  # of the random start


class References:
    """Popularity and ISGD, with their own numbers for users and items."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._counts = np.zeros(0)
        self._p = np.zeros((0, RANK), np.float32)
        self._q = np.zeros((0, RANK), np.float32)
        self._taken: list[set[int]] = []

    def test(self, user: str, item_id: str, *, repeats: bool) -> dict[str, float] | None:
        """Ranks of the item by each, among all items seen; None for a user or an item that was never seen."""
        u, i = self._users.get(user), self._items.get(item_id)
        if u is None or i is None:
            return None
        n = len(self._items)
        allowed = np.ones(n, np.bool_)
        if not repeats:
            allowed[list(self._taken[u])] = False
        scores = _isgd_scores(self._q[:n], self._p[u])
        return {"popularity": _rank(self._counts[:n], allowed, i), "isgd": _rank(scores, allowed, i)}

    def learn(self, user: str, item_id: str) -> None:
        """A user took an item."""
        u = self._users.setdefault(user, len(self._users))
        i = self._items.setdefault(item_id, len(self._items))
        if u == len(self._taken):
            self._taken.append(set())
        self._p, self._q = self._reach(self._p, u), self._reach(self._q, i)
        if i >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(len(self._q) - len(self._counts))])
        self._taken[u].add(i)
        self._counts[i] += 1
        _isgd_step(self._p[u], self._q[i])

    def _reach(self, factors: NDArray[np.float32], row: int) -> NDArray[np.float32]:
        if row < len(factors):
            return factors
        more = self._rng.normal(0, FACTOR_SPREAD, (max(1024, row), RANK)).astype(np.float32)
        return np.concatenate([factors, more])


@njit(cache=True)
def _isgd_scores(q, p):  # type: ignore[no-untyped-def]
    """Nearness to 1, the target."""
    out = np.empty(len(q))
    for i in range(len(q)):
        dot = 0.0
        for k in range(len(p)):
            dot += q[i, k] * p[k]
        out[i] = -abs(1 - dot)
    return out


@njit(cache=True)
def _isgd_step(p, q):  # type: ignore[no-untyped-def]
    error = 1.0
    for k in range(len(p)):
        error -= p[k] * q[k]
    for k in range(len(p)):
        a, b = p[k], q[k]
        p[k] += STEP * (error * b - REG * a)
        q[k] += STEP * (error * a - REG * b)


@njit(cache=True)
def _rank(scores, allowed, i):  # type: ignore[no-untyped-def]
    above, equal = 0, 0
    for j in range(len(scores)):
        if allowed[j] and j != i:
            above += scores[j] > scores[i]
            equal += scores[j] == scores[i]
    return 1 + above + equal / 2
