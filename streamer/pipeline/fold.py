"""Fold: events in columns change the users' rows. The hot path: one compiled pass over a batch, no Python per event.

An event costs a look through the user's ring of event ids, one entry in the recent items, and one touch per tag (see
`model.interests`); the rest of the user's row is read only for the sample that `model.tag_mix` learns from. Events are
taken in the order of `order`: the one in which Kafka got them.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import Touch, add
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
from streamer.pipeline.population import Mind, learn_from

APPLIED, DUPLICATE, EXCESS = 0, 1, 2  # EXCESS: applied, but one too many to teach anything beyond its user's profile
PURCHASE = 2
HOUR_MS = 3_600_000
# What teaches others is bounded, so that a bot owns neither an item nor a tag: of events of a kind on one item within
# an hour of each other so many count (a look, a second look and a doubt are a person's), and of all events in an hour
# as many as of a shopper with a long list. In the user's own profile all count, whatever the order of arrival.
TAUGHT_AN_ITEM: Final = 3
TAUGHT_AN_HOUR: Final = 100  # 3 % of the lines of Online Retail, a wholesaler, are beyond


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

    outcome: NDArray[np.uint8]  # APPLIED, DUPLICATE or EXCESS
    predecessors: NDArray[np.uint64]  # [n, PREDECESSORS] the user's earlier items, newest first, 0 = none


def fold(
    users: Users,
    events: Columns,
    order: NDArray[np.int64],
    mind: Mind,
    batch: int,
    folded: Folded | None = None,
) -> Folded:
    """Apply events to `users` in place.

    `order` is a permutation of the events, or a part of one: then `folded` is what came of the parts before, and is
    added to. `mind` learns from a sample of the events. `batch` numbers the call, for the cache. Raises nothing: what
    can be wrong with an event was found before (`pipeline.decode`).
    """
    folded = folded or blank(len(events.slot))
    _fold(users, events, order, mind, batch, folded.outcome, folded.predecessors)
    return folded


def blank(events: int) -> Folded:
    """What is said of so many events before they are folded."""
    return Folded(np.zeros(events, np.uint8), np.zeros((events, PREDECESSORS), np.uint64))


@leaf
def _fold(users, events, order, mind, batch, outcome, predecessors):  # type: ignore[no-untyped-def]
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
        time = (events.ts[i] << 8) | events.kind[i]
        repeats = _repeats(recents[: counts[N_RECENT]], events.item[i], time)
        own = events.tags[events.tag_at[i] : events.tag_at[i + 1]]
        if _count_hour(head, events.ts[i]) <= TAUGHT_AN_HOUR and repeats < TAUGHT_AN_ITEM:
            outcome[i] = APPLIED
            mine = users.tags[users.block[s] : users.block[s] + counts[N_TAGS]]
            learn_from(mind, events.event[i], head, mine, own, events.ts[i])
        else:
            outcome[i] = EXCESS
        newer = _add_recent(recents, counts, events.item[i], time)
        head.clock += newer == 0
        amount = events.weight[i]
        touch = Touch(events.ts[i], np.int64(head.clock) - newer, amount, amount / max(len(own), 1))
        _count(head, events.ts[i])
        if events.kind[i] == PURCHASE:
            head.purchases += 1
            spend = place(users, s, N_SPEND)
            _spend(users.spends[spend : spend + CURRENCIES], counts, events.currency[i], events.micros[i])
        else:
            head.clicks += 1
        tags = users.tags[users.block[s] : users.block[s] + users.room[users.level[s], N_TAGS]]
        for tag in own:
            n, lost = add(tags, np.int64(counts[N_TAGS]), tag, touch, mind.scales)
            counts[N_TAGS] = n
            if lost != 0:
                head.lost_tag = lost
        if users.touched_at[s] == 0 or events.appended_at[i] < users.touched_at[s]:
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
def _count_hour(head, ts):  # type: ignore[no-untyped-def]
    """How many events there were since the newest hour began, with this one."""
    hour = ts // HOUR_MS
    if hour > head.hour:
        head.hour = hour
        head.in_hour = 0
    head.in_hour += 1
    return head.in_hour


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
def _repeats(recents, item, time):  # type: ignore[no-untyped-def]
    """How many recent events of the same kind were on the same item within an hour of this one."""
    n = 0
    for k in range(len(recents)):
        apart = (recents[k].time >> 8) - (time >> 8)
        if apart <= -HOUR_MS:
            break
        n += recents[k].item == item and (recents[k].time ^ time) & 255 == 0 and apart < HOUR_MS
    return n


@leaf
def _add_recent(recents, counts, item, time):  # type: ignore[no-untyped-def]
    """Insert by time, newest first; returns how many are newer.

    Among equal times by kind, a topic each, so that it never matters which topic was read first; among equal kinds the
    later arrival is the newer.
    """
    n = int(counts[N_RECENT])
    j = 0
    while j < n and recents[j].time > time:
        j += 1
    if j == len(recents):
        return j
    n = min(n + 1, len(recents))
    for k in range(n - 1, j, -1):
        recents[k].item = recents[k - 1].item
        recents[k].time = recents[k - 1].time
    recents[j].item = item
    recents[j].time = time
    counts[N_RECENT] = n
    return j
