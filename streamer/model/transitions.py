"""Transitions: which items came before an item, at two memory lengths; and what that says about a user's next one.

Learn.  An event on item i after the user's items h, newest first, age 0, 1, …:
            In_i[h] += 2^(-age_h / H)          H: 3 and 12 events (SHORT, LONG)
        decayed by time with HALF_LIFE_MS. Kept by destination, at the owner of i, strongest neighbours only.
Read.   Both directions come from these numbers: C[h, j] = In_j[h] + back · In_h[j], back .5 and .8. A reader links them
        by source. For a user with the items h, n_x the number of events of item x:
            A_j = Σ_h 2^(-age_h / H) / (n_h^0.7 + 2) · C[h, j] / (n_j^0.5 + 2)
        On the long memory, items of earlier sessions (a gap over 30 minutes) weigh .3 of it.

Time. Weights are forward-decayed (Cormode et al. 2009): an event adds its weight times 2^((ts - landmark)/
HALF_LIFE_MS), and what a row is worth at a time is its numbers times 2^((landmark - time)/HALF_LIFE_MS). So an event
costs the same however long the row, and late events count as if they had come in time. Rows are rescaled every RESCALE
half-lives.

A worked number: i follows h (age 0) and g (age 1): In_i[h] = (1, 1), In_i[g] = (2^(-1/3), 2^(-1/12)) = (.79, .94).

Measured on Online Retail (first 250,000 events, HR@20): half-life by time none .219, 180 d .221, 90 d .221, 30 d .212.
Read with the memories swapped it loses: learned long and read short .196, each for its own .221.

References: the measurements are this project's; item-to-item transitions with decay are those of Ludewig and Jannach
2018, "Evaluation of session-based recommendation algorithms".
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.ragged import Pool, has_room, put, seek

HALF_LIFE_MS: Final = 90 * 86_400_000
MEMORIES: Final = (3.0, 12.0)  # half-lives in events
BACK: Final = (0.5, 0.8)  # what a step backwards counts
EARLIER_SESSION: Final = (1.0, 0.3)
SESSION_GAP_MS: Final = 30 * 60_000
MOST: Final = 192  # neighbours kept of an item; up to a quarter of them wait for their second event
LINKS: Final = 384  # neighbours of an item in both directions
RESCALE: Final = 20.0  # half-lives: float32 overflows at 127


@njit(cache=True)
def recency(n: int) -> NDArray[np.float64]:
    """2^(-age / H) f64[n, 2] for ages 0, 1, … at both memory lengths."""
    out = np.empty((n, 2))
    for age in range(n):
        for m in range(2):
            out[age, m] = 2.0 ** (-age / MEMORIES[m])
    return out


def learn(
    pool: Pool,
    landmarks: NDArray[np.int64],
    positives: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    predecessors: NDArray[np.uint64],
    ts: NDArray[np.int64],
    first: int,
) -> int:
    """Learn signals from number `first` on; returns the number of the first that found no room in the pool.

    Signal s: row `positives` i64[n] of an item (a negative one is passed over) that has the hash `hashes` u64[rows],
    the hashes `predecessors` u64[n, m] of the user's items before it, newest first (0 ends the list), and its time
    `ts` i64[n] ms. `landmarks` i64[rows] ms belong to the rows of `pool`, which have two weights a key. Cost: 1.8 µs a
    signal of 12 items.
    """
    by_age = recency(predecessors.shape[1])
    return int(_learn(pool, landmarks, positives, hashes, predecessors, ts, first, by_age))


@leaf
def _learn(pool, landmarks, positives, hashes, predecessors, ts, first, by_age):  # type: ignore[no-untyped-def]
    for s in range(first, len(positives)):
        if not has_room(pool, 1):
            return s
        i = positives[s]
        if i < 0:
            continue
        scale = _scale(pool, landmarks, i, ts[s])
        for age in range(predecessors.shape[1]):
            h = predecessors[s, age]
            if h == 0:
                break
            if h != hashes[i]:
                e = put(pool, i, h)
                pool.weights[e, 0] += by_age[age, 0] * scale
                pool.weights[e, 1] += by_age[age, 1] * scale
    return len(positives)


@leaf
def _scale(pool, landmarks, i, ts):  # type: ignore[no-untyped-def]
    """What a weight of 1 at `ts` is in the numbers of row i; moves the landmark where it is too far behind."""
    if pool.size[i] == 0:
        landmarks[i] = ts
    ahead = (ts - landmarks[i]) / HALF_LIFE_MS
    if ahead < RESCALE:
        return 2.0 ** max(ahead, -100.0)
    fade = np.float32(2.0 ** max(-ahead, -100.0))
    for e in range(pool.at[i], pool.at[i] + pool.room[i]):
        pool.weights[e, 0] *= fade
        pool.weights[e, 1] *= fade
    landmarks[i] = ts
    return 1.0


# By source: row h has under the key j + 1 four weights, In_j[h] (short, long), then In_h[j] (short, long).


@leaf
def link(pool, i, sources, weights):  # type: ignore[no-untyped-def]
    """Take over In_i, f32[n, 2] by `sources` i64[n] (rows; -1 is passed over): False where the pool has no room for it.

    Whatever In_i was before is gone. Entries of the rows of `sources` change with it. Cost: 0.4 µs a neighbour that
    changed.
    """
    if not has_room(pool, len(sources) + 1):
        return False
    start = pool.at[i]
    for e in range(start, start + pool.room[i]):
        if pool.keys[e] != 0 and pool.weights[e, 3] > 0:
            pool.weights[e, 3] = -pool.weights[e, 3]  # to be seen again
    for n in range(len(sources)):
        if sources[n] >= 0 and sources[n] != i:
            _twin(pool, i, sources[n], weights[n, 0], weights[n, 1])
    start = pool.at[i]
    for e in range(start, start + pool.room[i]):
        if pool.keys[e] != 0 and pool.weights[e, 3] < 0:
            pool.weights[e, 2] = pool.weights[e, 3] = 0
            _unlink(pool, np.int64(pool.keys[e]) - 1, np.uint64(i + 1))
    return True


@leaf
def _twin(pool, i, source, short, long):  # type: ignore[no-untyped-def]
    """In_i[source] stands in the rows of both. What did not change is left alone: most of a model, most of the time."""
    e = put(pool, i, np.uint64(source + 1))
    if pool.weights[e, 3] == -long and pool.weights[e, 2] == short:
        pool.weights[e, 3] = long
        return
    pool.weights[e, 2], pool.weights[e, 3] = short, long
    e = put(pool, source, np.uint64(i + 1))
    pool.weights[e, 0], pool.weights[e, 1] = short, long


@leaf
def _unlink(pool, source, key):  # type: ignore[no-untyped-def]
    if pool.size[source] > 0:
        e = seek(pool.keys, pool.at[source], pool.room[source], key)
        if pool.keys[e] == key:
            pool.weights[e, 0] = pool.weights[e, 1] = 0


@njit(cache=True)
def strengths(recent_ts, now):  # type: ignore[no-untyped-def]
    """How much each of a user's items counts, f64[n, 2], newest first; `recent_ts` i64[n] ms."""
    out = recency(len(recent_ts))
    earlier, after = False, now
    for age in range(len(recent_ts)):
        earlier = earlier or after - recent_ts[age] > SESSION_GAP_MS
        after = recent_ts[age]
        if earlier:
            for m in range(2):
                out[age, m] *= EARLIER_SESSION[m]
    return out


@leaf
def spread(pool, items, strength, fade, by_source, by_destination, scores, touched, n):  # type: ignore[no-untyped-def]
    """Add A of both memories to `scores` f64[items, 2], all zeros before; returns how many places it touched.

    `items` i64[h]: the user's items, newest first (-1: unknown), with `strength` f64[h, 2]. `fade` f32[items] brings
    the numbers of In_j to the present; `by_source` and `by_destination` f32[items] are 1/(n^0.7 + 2) and
    1/(n^0.5 + 2). Touched places go into `touched` i64[items] from `n` on. Neighbours beyond these arrays are newer
    than they are, and passed over. Cost: 4 ns a neighbour.
    """
    for age in range(len(items)):
        h = items[age]
        if h < 0:
            continue
        short, long = strength[age, 0] * by_source[h], strength[age, 1] * by_source[h]
        start = pool.at[h]
        for e in range(start, start + pool.room[h]):
            if pool.keys[e] == 0:
                continue
            j = np.int64(pool.keys[e]) - 1
            w = pool.weights[e]  # forward short and long, backward short and long
            if j >= len(fade) or (w[1] == 0 and w[3] == 0):
                continue
            if scores[j, 1] == 0:
                touched[n] = j
                n += 1
            scores[j, 0] += short * (w[0] * fade[j] + BACK[0] * w[2] * fade[h]) * by_destination[j]
            scores[j, 1] += long * (w[1] * fade[j] + BACK[1] * w[3] * fade[h]) * by_destination[j]
    return n
