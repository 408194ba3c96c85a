"""Interest tags: how much a user cares for a tag, on several scales. Pure maths over one user's arrays.

    x_s[t] = Σ over events e with tag t of  a_s(e) · 2^(-age_s(e) / H_s)

    scale    fades with              an event counts as a_s
    RECENT   time, 1 day             its amount, split evenly over its tags
    MAIN     time, 30 days           its amount: the weight of its kind
    EVENTS   time, 30 days           1
    SHORT    events, 3               as RECENT
    LONG     events, 20              as RECENT
    EVER     never                   as RECENT

Stored: per tag the time of its newest event and that event's number among the user's, and the weights as of these; so
an event touches only its own tags, and a read fades to the moment it asks for. A late event adds what would be left of
it: its age in time is exact, so that sums by time do not depend on the order. Its age in events is the number of newer
events that the user's recent items still name; what is older than a late event does not age by it: on SHORT and LONG it
stays up to 2^(1/H) too strong, which the next few events wipe out.

>>> tags = np.zeros(4, TAG)
>>> scales = Scales(half_life_ms=100.0, recent_half_life_ms=10.0, smoothing=1.0)
>>> n, lost = add(tags, 0, 7, Touch(ts=1000, at=1, amount=1.0, part=1.0), scales)
>>> n, lost = add(tags, n, 7, Touch(ts=1100, at=2, amount=1.0, part=1.0), scales)
>>> n, [round(w, 4) for w in tags[0]["weight"].tolist()]
(1, [1.001, 1.5, 1.5, 1.7937, 1.9659, 2.0])

Reference: Cormode et al. 2009, "Forward decay" (same sums, other bookkeeping).
"""

from typing import Final, NamedTuple

import numpy as np

from streamer.model.compiled import leaf

RECENT, MAIN, EVENTS, SHORT, LONG, EVER = range(6)
SCALES: Final = 6
# Half-lives in events. Which ones hardly matters: Online Retail / REES46, NLL of the next event's tags with 3 and 10
# 5.769 / 2.550, with 3 and 20 5.768 / 2.552, with 3 and 50 5.767 / 2.553, with 10 alone 5.768 / 2.559.
SHORT_EVENTS: Final = 3.0
LONG_EVENTS: Final = 20.0

TAG: Final = np.dtype(
    [
        ("tag", "<u8"),
        ("ts", "<i8"),  # newest event, ms
        ("weight", "<f4", (SCALES,)),  # by scale, valid at `ts` and `at`
        ("published", "<f4"),  # share as last published; not above 0: was no interest
        ("at", "<i4"),  # number of the newest event; below 0 of one that came late
    ]
)


class Scales(NamedTuple):
    """How fast interests fade, and how many of a user's tags the population's shares weigh as; see the settings."""

    half_life_ms: float
    recent_half_life_ms: float
    smoothing: float


class Touch(NamedTuple):
    """What an event adds to each of its tags."""

    ts: int  # ms
    at: int  # its number among the user's events
    amount: float
    part: float  # its amount, split over its tags


@leaf
def add(tags, n, tag, touch, scales):  # type: ignore[no-untyped-def]
    """Count one event for one tag; returns the number of tags and a published tag that had to make room (0: none).

    `tags` TAG[T], of which `n` are used. When all places are taken, the weakest tag on the main scale leaves, unless it
    outweighs the event: then the event counts for nothing. All fade alike, so that holding them against each other at
    the event's time is the same at any time.
    """
    lost = np.uint64(0)
    for j in range(n):
        if tags[j].tag == tag:
            _merge(tags[j], touch, scales)
            return n, lost
    j = n
    if n == len(tags):
        j = weakest(tags, n, touch.ts, scales.half_life_ms)
        if touch.amount < tags[j].weight[MAIN] * fade(touch.ts - tags[j].ts, scales.half_life_ms):
            return n, lost
        if tags[j].published > 0:
            lost = tags[j].tag
    else:
        n += 1
    _begin(tags[j], tag, touch)
    return n, lost


@leaf
def _begin(entry, tag, touch):  # type: ignore[no-untyped-def]
    entry.tag = tag
    entry.ts = touch.ts
    entry.at = touch.at
    entry.published = 0
    entry.weight[:] = touch.part
    entry.weight[MAIN] = touch.amount
    entry.weight[EVENTS] = 1


@leaf
def _merge(entry, touch, scales):  # type: ignore[no-untyped-def]
    """Bring the older of weights and event to the moment of the newer, and add."""
    gap, steps, weight = touch.ts - entry.ts, touch.at - np.int64(entry.at), entry.weight
    main = fade(abs(gap), scales.half_life_ms)
    weight[RECENT] = _sum(weight[RECENT], touch.part, gap, fade(abs(gap), scales.recent_half_life_ms))
    weight[MAIN] = _sum(weight[MAIN], touch.amount, gap, main)
    weight[EVENTS] = _sum(weight[EVENTS], 1, gap, main)
    weight[SHORT] = _sum(weight[SHORT], touch.part, steps, fade(abs(steps), SHORT_EVENTS))
    weight[LONG] = _sum(weight[LONG], touch.part, steps, fade(abs(steps), LONG_EVENTS))
    weight[EVER] += touch.part
    entry.ts = max(entry.ts, touch.ts)
    entry.at = max(np.int64(entry.at), touch.at)


@leaf
def _sum(weight, added, gap, left):  # type: ignore[no-untyped-def]
    """Of the older of the two `left` is left."""
    return weight * left + added if gap > 0 else weight + added * left


@leaf
def fade(age, half_life):  # type: ignore[no-untyped-def]
    """What is left of 1."""
    return 2.0 ** (-age / half_life)


@leaf
def weakest(tags, n, now, half_life_ms):  # type: ignore[no-untyped-def]
    """The tag with the least main weight at `now`; of equals the one seen longest ago, then the first."""
    where = 0
    least = np.inf
    for j in range(n):
        w = tags[j].weight[MAIN] * fade(now - tags[j].ts, half_life_ms)
        if w < least or (w == least and tags[j].ts < tags[where].ts):
            where = j
            least = w
    return where
