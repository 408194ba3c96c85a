"""Ranks of the items that were taken, and the figures made of them."""

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

CUTS: Final = (1, 5, 10, 20)
LONGEST: Final = 20
UNRANKED: Final = math.inf


class Tally:
    """Hit rates, nDCG, reciprocal ranks and coverage of one ranking."""

    def __init__(self) -> None:
        self.tested = 0
        self._hits = np.zeros(len(CUTS), np.int64)
        self._gain = self._reciprocal = 0.0
        self._shown: set[int] = set()

    def add(self, rank: float) -> None:
        """The taken item stood at `rank` (1 is best, ties at their middle; UNRANKED: it was no candidate)."""
        self.tested += 1
        self._hits += rank <= np.array(CUTS)
        self._reciprocal += 1 / rank
        if rank <= LONGEST:
            self._gain += 1 / math.log2(1 + rank)

    def show(self, items: NDArray[np.int64]) -> None:
        """Items that stood first for somebody."""
        self._shown.update(items.tolist())

    def figures(self, items: int) -> dict[str, float]:
        """By name; coverage, where it was noted, is the share of `items` that stood among the first 20 for somebody."""
        n = max(self.tested, 1)
        rates = {f"hr@{cut}": int(hits) / n for cut, hits in zip(CUTS, self._hits, strict=True)}
        coverage = {"coverage": len(self._shown) / max(items, 1)} if self._shown else {}
        return {**rates, "ndcg@20": self._gain / n, "mrr": self._reciprocal / n, **coverage}


@njit(cache=True)
def ranks(columns, allowed, place, outside):  # type: ignore[no-untyped-def]
    """Rank f64[m] of candidate `place` on each of `columns` f64[c, m] among those `allowed` bool[c]; ties: the middle.

    `outside` more items have the least value of a column, wherever that is what the candidate has.
    """
    out = np.empty(columns.shape[1])
    for m in range(columns.shape[1]):
        own, least = columns[place, m], np.inf
        above, equal = 0, 0
        for c in range(len(columns)):
            least = min(least, columns[c, m])
            if allowed[c] and c != place:
                above += columns[c, m] > own
                equal += columns[c, m] == own
        if own == least:
            equal += outside
        out[m] = 1 + above + equal / 2
    return out


def first(column: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places of the first 20 allowed candidates, in no order."""
    kept = np.flatnonzero(allowed)
    if len(kept) <= LONGEST:
        return kept
    return kept[np.argpartition(-column[kept], LONGEST)[:LONGEST]]
