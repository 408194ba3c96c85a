"""Whose turn it is, where many wait for something that costs too much to be done for all at once."""

import math
from collections.abc import Generator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

WITHIN_S: Final = 300  # nobody waits for longer, however many there are
PAUSE_MS: Final = 1000  # between two turns, while somebody waits
BURST_MS: Final = 5000  # after a pause, what such a time allows

T = TypeVar("T")


class Turns:
    """Lets so many pass a second, those first that waited longest."""

    def __init__(self, per_s: int) -> None:
        self._per_s, self.last_ms = per_s, 0

    def take(self, since: NDArray[np.int64], now_ms: int) -> NDArray[np.int64]:
        """Of those who wait `since` i64[n], in any unit, the places of the ones whose turn it is now; at least one."""
        elapsed_s = min(max(now_ms - self.last_ms, 0), BURST_MS) / 1000
        self.last_ms = now_ms
        n = max(math.ceil(max(self._per_s, len(since) / WITHIN_S) * elapsed_s), 1)
        return np.arange(len(since)) if n >= len(since) else np.argpartition(since, n - 1)[:n]


def at_once(work: Generator[None, None, T]) -> T:
    """What a generator that works in pieces comes to, without pauses."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
