"""Fold: events in columns change the users' rows. The hot path: one compiled pass over a batch, no Python per event.

An event costs a look through the user's ring of event ids, one entry in the recent items, and one touch per tag (see
`model.interests`); nothing else of the user's row is read. Events are taken in the order of `order`: the one in which
Kafka got them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import add
from streamer.pipeline.layout import (
    CURRENCIES,
    N_RECENT,
    N_SEEN,
    N_SPEND,
    N_TAGS,
    PREDECESSORS,
    Users,
)

APPLIED, DUPLICATE = 0, 1
PURCHASE = 2
HOUR_MS = 3_600_000


class Columns(NamedTuple):
    """Events of one batch, one array a field; `tag_at` cuts `tags` into one list an event."""

    slot: NDArray[np.int64]
    ts: NDArray[np.int64]
    kind: NDArray[np.uint8]
    weight: NDArray[np.float32]
    event: NDArray[np.uint64]
    item: NDArray[np.uint64]
    micros: NDArray[np.float64]  # money of a purchase in millionths, 0 otherwise
    currency: NDArray[np.uint32]
    tag_at: NDArray[np.int64]
    tags: NDArray[np.uint64]
    appended_at: NDArray[np.int64]  # Kafka timestamp, ms


class Folded(NamedTuple):
    """What a fold says of each event."""

    outcome: NDArray[np.uint8]  # APPLIED or DUPLICATE
    predecessors: NDArray[np.uint64]  # [n, PREDECESSORS] the user's earlier items, newest first, 0 = none


def fold(
    users: Users, events: Columns, order: NDArray[np.int64], half_lives_ms: NDArray[np.float64], batch: int
) -> Folded:
    """Apply events to `users` in place.

    `order` is a permutation of the events; `half_lives_ms` f64[3] are those of `model.interests`; `batch` numbers the
    call, for the cache. Raises nothing: what can be wrong with an event was found before (`pipeline.decode`).
    """
    outcome = np.zeros(len(order), np.uint8)
    predecessors = np.zeros((len(order), PREDECESSORS), np.uint64)
    _fold(users, events, order, half_lives_ms, batch, outcome, predecessors)
    return Folded(outcome, predecessors)


@leaf
def _fold(users, events, order, half_lives_ms, batch, outcome, predecessors):  # type: ignore[no-untyped-def]
    for i in order:
        s = events.slot[i]
        head = users.head[s]
        users.used[s] = batch
        if _seen(users.seen[s], head, events.event[i]):
            outcome[i] = DUPLICATE
            continue
        _remember_predecessors(users, s, head, predecessors[i])
        _count(users, s, head, events, i)
        _add_recent(users.recent_item[s], users.recent_ts[s], head, events.item[i], events.ts[i], events.kind[i])
        for t in range(events.tag_at[i], events.tag_at[i + 1]):
            n, lost = add(
                users.tag[s],
                users.tag_weight[s],
                users.tag_ts[s],
                users.tag_published[s],
                np.int64(head.counts[N_TAGS]),
                events.tags[t],
                events.ts[i],
                events.weight[i],
                half_lives_ms,
            )
            head.counts[N_TAGS] = n
            if lost != 0:
                head.lost_tag = lost
        users.touched_at[s] = events.appended_at[i]


@leaf
def _seen(ring, head, event):  # type: ignore[no-untyped-def]
    """Whether the ring has the event id; puts it in otherwise, over the oldest when full."""
    n = np.int64(head.counts[N_SEEN])
    for j in range(n):
        if ring[j] == event:
            return True
    at = np.int64(head.seen_next)
    ring[at] = event
    head.seen_next = (at + 1) % len(ring)
    if n < len(ring):
        head.counts[N_SEEN] = n + 1
    return False


@leaf
def _remember_predecessors(users, s, head, out):  # type: ignore[no-untyped-def]
    for j in range(min(np.int64(head.counts[N_RECENT]), np.int64(len(out)))):
        out[j] = users.recent_item[s, j]


@leaf
def _count(users, s, head, events, i):  # type: ignore[no-untyped-def]
    ts = events.ts[i]
    head.by_hour[(ts // HOUR_MS) % 24] += 1
    head.since_vector += 1
    if head.clicks + head.purchases == 0 or ts < head.first_seen:
        head.first_seen = ts
    head.as_of = max(head.as_of, ts)
    if events.kind[i] == PURCHASE:
        head.purchases += 1
        _spend(users, s, head, events.currency[i], events.micros[i])
    else:
        head.clicks += 1


@leaf
def _spend(users, s, head, currency, micros):  # type: ignore[no-untyped-def]
    n = np.int64(head.counts[N_SPEND])
    for j in range(n):
        if users.spend_currency[s, j] == currency:
            users.spend_micros[s, j] += micros
            return
    if n < CURRENCIES:
        users.spend_currency[s, n] = currency
        users.spend_micros[s, n] = micros
        head.counts[N_SPEND] = n + 1


@leaf
def _add_recent(items, times, head, item, ts, kind):  # type: ignore[no-untyped-def]
    """Insert by time, newest first; among equal times by kind, a topic each, so that it never matters which topic was
    read first; among equal kinds the later arrival is the newer."""
    n = np.int64(head.counts[N_RECENT])
    time = (ts << 8) | kind
    j = 0
    while j < n and times[j] > time:
        j += 1
    if j == len(items):
        return
    n = min(n + 1, np.int64(len(items)))
    for k in range(n - 1, j, -1):
        items[k] = items[k - 1]
        times[k] = times[k - 1]
    items[j] = item
    times[j] = time
    head.counts[N_RECENT] = n
