"""Interest tags: how much a user cares for a tag, on several time scales. Pure maths over one user's arrays.

    x_s[t] = Σ over events e with tag t of  w_e · 2^(-(now - ts_e)/H_s)    s: recent, main, events (w = 1)
    P(t)   = (x[t] + m·P0[t]) / (Σ_t x[t] + m)                             smoothed towards the population's share P0

Stored: per tag its newest event's time, and its weights as of that time; so an event touches only its own tags, and a
read decays to the time it asks for. A late event adds 2^(-(ts_tag - ts)/H) of its weight: the sum does not depend on
the order.

>>> tags = np.zeros(4, TAG)
>>> half_lives = np.array([10.0, 100.0, 100.0])
>>> n, lost = add(tags, 0, 7, 1000, 1.0, half_lives)
>>> n, lost = add(tags, n, 7, 1100, 1.0, half_lives)
>>> n, [round(w, 4) for w in tags[0]["weight"].tolist()]
(1, [1.001, 1.5, 1.5])

Reference: Cormode et al. 2009, "Forward decay" (same sums, other bookkeeping).
"""

from typing import Final

import numpy as np

from streamer.model.compiled import leaf

RECENT, MAIN, EVENTS = 0, 1, 2
SCALES: Final = 3

TAG: Final = np.dtype(
    [
        ("tag", "<u8"),
        ("ts", "<i8"),  # newest event, ms
        ("weight", "<f4", (SCALES,)),  # by scale, valid at `ts`
        ("published", "<f4"),  # share as last published; not above 0: was no interest
    ]
)


@leaf
def add(tags, n, tag, ts, amount, half_lives_ms):  # type: ignore[no-untyped-def]
    """Count one event for one tag; returns the number of tags and a published tag that had to make room (0: none).

    `tags` TAG[T], of which `n` are used; `half_lives_ms` f64[3]. When all places are taken, the weakest tag on the main
    scale leaves, unless it outweighs the event: then the event counts for nothing. All fade alike, so that holding them
    against each other at `ts` is the same at any time.
    """
    lost = np.uint64(0)
    for j in range(n):
        if tags[j].tag == tag:
            _merge(tags[j], ts, amount, half_lives_ms)
            return n, lost
    j = n
    if n == len(tags):
        j = weakest(tags, n, ts, half_lives_ms[MAIN])
        if amount < tags[j].weight[MAIN] * 2.0 ** (-(ts - tags[j].ts) / half_lives_ms[MAIN]):
            return n, lost
        if tags[j].published > 0:
            lost = tags[j].tag
    else:
        n += 1
    tags[j].tag = tag
    tags[j].ts = ts
    tags[j].published = 0
    tags[j].weight[RECENT] = tags[j].weight[MAIN] = amount
    tags[j].weight[EVENTS] = 1
    return n, lost


@leaf
def _merge(entry, ts, amount, half_lives_ms):  # type: ignore[no-untyped-def]
    """Bring the older of weights and event to the time of the newer, and add."""
    gap = ts - entry.ts
    for s in range(SCALES):
        added = 1.0 if s == EVENTS else amount
        fade = 2.0 ** (-abs(gap) / half_lives_ms[s])
        entry.weight[s] = entry.weight[s] * fade + added if gap > 0 else entry.weight[s] + added * fade
    if gap > 0:
        entry.ts = ts


@leaf
def weakest(tags, n, now, half_life_ms):  # type: ignore[no-untyped-def]
    """The tag with the least main weight at `now`; of equals the one seen longest ago, then the first."""
    where = 0
    least = np.inf
    for j in range(n):
        w = tags[j].weight[MAIN] * 2.0 ** (-(now - tags[j].ts) / half_life_ms)
        if w < least or (w == least and tags[j].ts < tags[where].ts):
            where = j
            least = w
    return where


@leaf
def shares(tags, n, now, scale, half_life_ms, prior, smoothing, out):  # type: ignore[no-untyped-def]
    """Smoothed shares P(t) on one scale at `now` into `out` f64[n]; `prior` f64[n] is P0 of each tag. Returns Σ x."""
    total = 0.0
    for j in range(n):
        out[j] = tags[j].weight[scale] * 2.0 ** (-max(now - tags[j].ts, 0) / half_life_ms)
        total += out[j]
    for j in range(n):
        out[j] = (out[j] + smoothing * prior[j]) / max(total + smoothing, 1e-30)
    return total
