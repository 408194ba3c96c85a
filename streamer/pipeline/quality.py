"""How well events were predicted before they were learned from: sums since the start, and by minute. In memory only."""

from collections import deque
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.recommendation import Quality, QualityPoint, Scores

FIRST: Final = 20  # a hit stands among so many
COLD_BELOW: Final = 10  # events of a user who is not new any more
MINUTE_MS: Final = 60_000
POINTS: Final = 24 * 60  # minutes kept: a day, 250 KB


class Placed(NamedTuple):
    """What was said of one event before it was learned from, in the order of `Scores`."""

    hit: float  # 1: among the first; between, where ties stand across the edge
    expected: float  # probability of the first together
    log_loss: float  # nats
    popularity_hit: float
    popularity_log_loss: float


class Meter:
    """Adds up what events were worth, cold and warm users apart."""

    def __init__(self) -> None:
        self._total = _blank()
        self._points: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=POINTS)

    def add(self, placed: Placed, history: int, now_ms: int) -> None:
        """An event of a user with so many events before it."""
        minute = now_ms - now_ms % MINUTE_MS
        if not self._points or self._points[-1][0] < minute:
            self._points.append((minute, _blank()))
        for sums in (self._total, self._points[-1][1]):
            sums[int(history >= COLD_BELOW)] += (1, *placed)

    def totals(self) -> dict[str, tuple[float, Placed]]:
        """Since the start, of cold and of warm users: how many events, and the sums of what they were worth."""
        return {users: (sums[0], Placed(*sums[1:])) for users, sums in zip(("cold", "warm"), self._total, strict=True)}

    def quality(self, model: str, weights: dict[str, float]) -> Quality:
        """All of it."""
        cold, warm = map(_scores, self._total)
        points = tuple(QualityPoint(at, *map(_scores, sums)) for at, sums in self._points)
        return Quality(model, COLD_BELOW, cold, warm, weights, points)


def _blank() -> NDArray[np.float64]:
    return np.zeros((2, 1 + len(Placed._fields)))  # cold, warm


def _scores(sums: NDArray[np.float64]) -> Scores:
    events = int(sums[0])
    return Scores(events, *(sums[1:] / max(events, 1)).tolist())
