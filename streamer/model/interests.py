"""Interest tags: how much a user cares for a tag, on several time scales. Pure maths over one user's arrays.

    x_s[t] = Σ over events e with tag t of  w_e · 2^(-(now - ts_e)/H_s)    s: recent, main, events (w = 1), ever (H = ∞)
    P(t)   = (x[t] + m·P0[t]) / (Σ_t x[t] + m)                             smoothed towards the population's share P0

Stored: per tag its newest event's time, and its weights as of that time; so an event touches only its own tags, and a
read decays to the time it asks for. A late event adds 2^(-(ts_tag - ts)/H) of its weight: the sum does not depend on
the order.

>>> import numpy as np
>>> tags, ts = np.zeros(4, np.uint64), np.zeros(4, np.int64)
>>> weights, published = np.zeros((4, 4), np.float32), np.zeros(4, np.float32)
>>> half_lives = np.array([10.0, 100.0, 100.0])
>>> n, lost = add(tags, weights, ts, published, 0, 7, 1000, 1.0, half_lives)
>>> n, lost = add(tags, weights, ts, published, n, 7, 1100, 1.0, half_lives)
>>> n, [round(w, 4) for w in weights[0].tolist()]
(1, [1.001, 1.5, 1.5, 2.0])

Reference: MODEL measurements in the README; Cormode et al. 2009, "Forward decay" (same sums, other bookkeeping).
"""

import numpy as np

from streamer.model.compiled import leaf

RECENT, MAIN, EVENTS, EVER = 0, 1, 2, 3


@leaf
def add(tags, weights, tag_ts, published, n, tag, ts, amount, half_lives_ms):  # type: ignore[no-untyped-def]
    """Count one event for one tag; returns the number of tags and a published tag that had to make room (0: none).

    `tags` u64[T], `weights` f32[T, 4], `tag_ts` i64[T] ms, `published` f32[T]; `half_lives_ms` f64[3] of the decaying
    scales. When all places are taken, the weakest tag on the main scale leaves, unless it outweighs the event: then the
    event counts for nothing. All fade alike, so that holding them against each other at `ts` is the same at any time.
    """
    lost = np.uint64(0)
    for j in range(n):
        if tags[j] == tag:
            _merge(weights[j], tag_ts, j, ts, amount, half_lives_ms)
            return n, lost
    j = n
    if n == len(tags):
        j = weakest(weights, tag_ts, n, ts, half_lives_ms[MAIN])
        if amount < weights[j, MAIN] * 2.0 ** (-(ts - tag_ts[j]) / half_lives_ms[MAIN]):
            return n, lost
        if published[j] > 0:
            lost = tags[j]
    else:
        n += 1
    tags[j] = tag
    tag_ts[j] = ts
    published[j] = 0
    weights[j, RECENT] = weights[j, MAIN] = weights[j, EVER] = amount
    weights[j, EVENTS] = 1
    return n, lost


@leaf
def _merge(w, tag_ts, j, ts, amount, half_lives_ms):  # type: ignore[no-untyped-def]
    """Bring the older of weights and event to the time of the newer, and add."""
    gap = ts - tag_ts[j]
    for s in range(3):
        added = 1.0 if s == EVENTS else amount
        fade = 2.0 ** (-abs(gap) / half_lives_ms[s])
        w[s] = w[s] * fade + added if gap > 0 else w[s] + added * fade
    w[EVER] += amount
    if gap > 0:
        tag_ts[j] = ts


@leaf
def weakest(weights, tag_ts, n, now, half_life_ms):  # type: ignore[no-untyped-def]
    """The tag with the least main weight at `now`; of equals the one seen longest ago, then the first."""
    where = 0
    least = np.inf
    for j in range(n):
        w = weights[j, MAIN] * 2.0 ** (-(now - tag_ts[j]) / half_life_ms)
        if w < least or (w == least and tag_ts[j] < tag_ts[where]):
            where = j
            least = w
    return where


@leaf
def shares(weights, tag_ts, n, now, scale, half_life_ms, prior, smoothing, out):  # type: ignore[no-untyped-def]
    """Smoothed shares P(t) on one scale at `now` into `out` f64[n]; `prior` f64[n] is P0 of each tag. Returns Σ x."""
    total = 0.0
    for j in range(n):
        out[j] = weights[j, scale] * 2.0 ** (-max(now - tag_ts[j], 0) / half_life_ms)
        total += out[j]
    for j in range(n):
        out[j] = (out[j] + smoothing * prior[j]) / max(total + smoothing, 1e-30)
    return total
