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
    LEVELS,
    N_RECENT,
    N_SEEN,
    N_SPEND,
    N_TAGS,
    PREDECESSORS,
    Users,
    ensure_room,
    place,
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
    users: Users,
    events: Columns,
    order: NDArray[np.int64],
    half_lives_ms: NDArray[np.float64],
    batch: int,
    folded: Folded | None = None,
) -> Folded:
    """Apply events to `users` in place.

    `order` is a permutation of the events, or a part of one: then `folded` is what came of the parts before, and is
    added to. `half_lives_ms` f64[3] are those of `model.interests`; `batch` numbers the call, for the cache. Raises
    nothing: what can be wrong with an event was found before (`pipeline.decode`).
    """
    folded = folded or blank(len(events.slot))
    _fold(users, events, order, half_lives_ms, batch, folded.outcome, folded.predecessors)
    return folded


def blank(events: int) -> Folded:
    """What is said of so many events before they are folded."""
    return Folded(np.zeros(events, np.uint8), np.zeros((events, PREDECESSORS), np.uint64))


@leaf
def _fold(users, events, order, half_lives_ms, batch, outcome, predecessors):  # type: ignore[no-untyped-def]
    most = users.room[LEVELS - 1]
    for i in order:
        s = events.slot[i]
        head = users.head[s]
        counts = head.counts
        users.used[s] = batch
        seen = place(users, s, N_SEEN)
        if _count_of(users.seens[seen : seen + counts[N_SEEN]], events.event[i]):
            outcome[i] = DUPLICATE
            continue
        brings = events.tag_at[i + 1] - events.tag_at[i]
        ensure_room(
            users,
            s,
            min(counts[N_TAGS] + brings, most[N_TAGS]),
            min(counts[N_RECENT] + 1, most[N_RECENT]),
            min(counts[N_SEEN] + 1, most[N_SEEN]),
            min(counts[N_SPEND] + (events.kind[i] == PURCHASE), most[N_SPEND]),
        )
        seen = place(users, s, N_SEEN)
        _remember(users.seens[seen : seen + most[N_SEEN]], head, events.event[i])
        recent = place(users, s, N_RECENT)
        recents = users.recents[recent : recent + users.room[users.level[s], N_RECENT]]
        _remember_predecessors(recents, counts[N_RECENT], predecessors[i])
        _add_recent(recents, counts, events.item[i], (events.ts[i] << 8) | events.kind[i])
        _count(head, events.ts[i])
        if events.kind[i] == PURCHASE:
            head.purchases += 1
            spend = place(users, s, N_SPEND)
            _spend(users.spends[spend : spend + CURRENCIES], counts, events.currency[i], events.micros[i])
        else:
            head.clicks += 1
        tags = users.tags[users.block[s] : users.block[s] + users.room[users.level[s], N_TAGS]]
        for t in range(events.tag_at[i], events.tag_at[i + 1]):
            n, lost = add(tags, np.int64(counts[N_TAGS]), events.tags[t], events.ts[i], events.weight[i], half_lives_ms)
            counts[N_TAGS] = n
            if lost != 0:
                head.lost_tag = lost
        users.touched_at[s] = events.appended_at[i]


@leaf
def _count_of(ring, event):  # type: ignore[no-untyped-def]
    """How often the ring has an event id. Without a way out in the middle, so that it can be vectorised."""
    n = 0
    for j in range(len(ring)):
        n += ring[j] == event
    return n


@leaf
def _remember(ring, head, event):  # type: ignore[no-untyped-def]
    """Put an event id into the ring, over the oldest when the ring is as long as it gets."""
    at = np.int64(head.seen_next)
    ring[at] = event
    head.seen_next = (at + 1) % len(ring)
    if head.counts[N_SEEN] < len(ring):
        head.counts[N_SEEN] += 1


@leaf
def _remember_predecessors(recents, n, out):  # type: ignore[no-untyped-def]
    for j in range(min(int(n), len(out))):
        out[j] = recents[j].item


@leaf
def _count(head, ts):  # type: ignore[no-untyped-def]
    head.by_hour[(ts // HOUR_MS) % 24] += 1
    head.since_vector += 1
    if head.clicks + head.purchases == 0 or ts < head.first_seen:
        head.first_seen = ts
    head.as_of = max(head.as_of, ts)


@leaf
def _spend(spends, counts, currency, micros):  # type: ignore[no-untyped-def]
    n = np.int64(counts[N_SPEND])
    for j in range(n):
        if spends[j].currency == currency:
            spends[j].micros += micros
            return
    if n < CURRENCIES:
        spends[n].currency = currency
        spends[n].micros = micros
        spends[n].reserved = 0
        counts[N_SPEND] = n + 1


@leaf
def _add_recent(recents, counts, item, time):  # type: ignore[no-untyped-def]
    """Insert by time, newest first; among equal times by kind, a topic each, so that it never matters which topic was
    read first; among equal kinds the later arrival is the newer."""
    n = int(counts[N_RECENT])
    j = 0
    while j < n and recents[j].time > time:
        j += 1
    if j == len(recents):
        return
    n = min(n + 1, len(recents))
    for k in range(n - 1, j, -1):
        recents[k].item = recents[k - 1].item
        recents[k].time = recents[k - 1].time
    recents[j].item = item
    recents[j].time = time
    counts[N_RECENT] = n
