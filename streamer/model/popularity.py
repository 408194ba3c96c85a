"""Popularity: how many events an item had lately, at three half-lives. Forward decay: see `model.decay`.

Stored an item: three float64 as of the time of its newest event. No half-life is right everywhere: over five sets of
data 1 day, 7 days and longer memories each win somewhere, and the mix finds out.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.decay import add, fade

DAY_MS: Final = 86_400_000
HALF_LIVES_MS: Final = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
LONGEST: Final = 2  # the column of 30 days, the main scale of interests: like is compared with like


@njit(cache=True)
def learn(
    popularity: NDArray[np.float64],
    newest: NDArray[np.int64],
    events: NDArray[np.int64],
    items: NDArray[np.int64],
    ts: NDArray[np.int64],
) -> None:
    """Count events on `items` i64[n] at `ts` i64[n] ms into `popularity` f64[items, 3] as of `newest` i64[items] ms.

    `events` i64[items] counts them without decay. Negative items are passed over.
    """
    for n in range(len(items)):
        i = items[n]
        if i < 0:
            continue
        for s in range(3):
            popularity[i, s] = add(popularity[i, s], newest[i], ts[n], 1.0, HALF_LIVES_MS[s])
        newest[i] = max(newest[i], ts[n])
        events[i] += 1


@njit(cache=True, nogil=True)
def at(popularity: NDArray[np.float64], newest: NDArray[np.int64], now: int) -> NDArray[np.float64]:
    """Popularity f64[items, 3] as of `now`; of items whose newest event is later as of that."""
    out = np.empty_like(popularity)
    for i in range(len(out)):
        for s in range(3):
            out[i, s] = popularity[i, s] * fade(now - newest[i], HALF_LIVES_MS[s])
    return out
