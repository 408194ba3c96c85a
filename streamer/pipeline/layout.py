"""The users in memory: one slot a user, one array a field. And the rows they are stored as.

Every array has `capacity` slots in its first dimension. A field that holds a list has a count beside it in `counts`;
only the used part of a list is stored. The row of a user, little-endian, layout 1:

    u8 layout | u8 flags (bit 0: a change is held back) | HEAD (fixed) | used part of every list, as in LISTS | cause

`cause` is the event_id behind a change that is not published yet. An example: a user with 2 tags, 3 recent items, 3
event ids, no spending and no vector takes 2 + 168 + 2·36 + 3·16 + 3·8 = 314 bytes; one with 30 tags and full lists 2.5
KB; a full one 4.9 KB.

Widths are settings, and may change between two starts: of recent items and event ids the newest are kept, a vector of
another width is dropped.

Item ids, tags and event ids are kept as 64-bit hashes (xxh3): the strings of items and tags stand once in the
dictionary rows of the partition (see `pipeline.names`).
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.errors import StateError

LAYOUT: Final = 1
HELD: Final = 1  # flag: the row has a change that is not published yet

# Tags tracked a user: 20 are shown, the rest is the waiting room of new interests. A tag that had to leave starts anew
# when it comes back, so the more wait the truer the weights. Of the true 20 strongest of 3,871 shoppers with 103 tags
# on average (300,000 purchases), tracked / of these with a weight off by over 1 %: 32 tags 84 % / 17 %, 64: 98 % / 7 %,
# 96: 99.6 % / 2.5 %, 128: 99.9 % / 0.9 %. A tag takes 36 bytes.
TAGS: Final = 96
CURRENCIES: Final = 6  # currencies summed a user; purchases in further ones count, their amounts do not
PREDECESSORS: Final = 12  # earlier items that a signal names: beyond them 2^(-age/3) is under 7 %

# Lists that have a count: the columns of `counts`.
N_TAGS, N_RECENT, N_SEEN, N_SPEND, N_VECTOR = range(5)

HEAD: Final = np.dtype(
    [
        ("version", "<u4"),  # times published
        ("clicks", "<u4"),
        ("purchases", "<u4"),
        ("since_vector", "<u4"),  # events since the published vector
        ("as_of", "<i8"),  # newest ts applied, ms
        ("first_seen", "<i8"),
        ("published_at", "<i8"),
        ("held_until", "<i8"),  # when a change held back is due, ms; 0: nothing is held
        ("lost_tag", "<u8"),  # a published interest that left the tracked tags since; 0: none
        ("by_hour", "<u4", (24,)),
        ("counts", "<u2", (6,)),  # the last is reserved
        ("seen_next", "<u2"),  # where the ring of event ids goes on
        ("reserved", "<u2"),
    ]
)


class Shape(NamedTuple):
    """Widths that settings decide."""

    recent: int
    seen: int
    vector: int


class Users(NamedTuple):
    """The columns. `head` and the lists hold what is stored; `touched_at` and `used` live in memory only."""

    head: NDArray[np.void]  # [capacity] HEAD
    tag: NDArray[np.uint64]  # [capacity, TAGS]
    tag_weight: NDArray[np.float32]  # [capacity, TAGS, 4] by scale, see `model.interests`; valid at the tag's `tag_ts`
    tag_ts: NDArray[np.int64]  # [capacity, TAGS] newest event of the tag, ms
    tag_published: NDArray[np.float32]  # [capacity, TAGS] share as last published; 0: was no interest
    recent_item: NDArray[np.uint64]  # [capacity, recent] newest first
    recent_ts: NDArray[np.int64]  # [capacity, recent] ts << 8 | kind
    seen: NDArray[np.uint64]  # [capacity, seen] ring of event ids
    spend_currency: NDArray[np.uint32]  # [capacity, CURRENCIES] three letters
    spend_micros: NDArray[np.float64]  # [capacity, CURRENCIES] whole millionths: sums do not depend on the order
    vector: NDArray[np.int8]  # [capacity, vector] published vector, 127 = its largest number
    touched_at: NDArray[np.int64]  # [capacity] Kafka timestamp of the latest event
    used: NDArray[np.int64]  # [capacity] batch number of the latest use, for the cache


# Lists in the order in which a row holds them: (field of Users, its count).
LISTS: Final = (
    ("tag", N_TAGS),
    ("tag_weight", N_TAGS),
    ("tag_ts", N_TAGS),
    ("tag_published", N_TAGS),
    ("recent_item", N_RECENT),
    ("recent_ts", N_RECENT),
    ("seen", N_SEEN),
    ("spend_currency", N_SPEND),
    ("spend_micros", N_SPEND),
    ("vector", N_VECTOR),
)


def allocate(capacity: int, shape: Shape) -> Users:
    """Empty columns. Memory is touched, and so taken, only when a slot is used."""
    return Users(
        head=np.zeros(capacity, HEAD),
        tag=np.zeros((capacity, TAGS), np.uint64),
        tag_weight=np.zeros((capacity, TAGS, 4), np.float32),
        tag_ts=np.zeros((capacity, TAGS), np.int64),
        tag_published=np.zeros((capacity, TAGS), np.float32),
        recent_item=np.zeros((capacity, shape.recent), np.uint64),
        recent_ts=np.zeros((capacity, shape.recent), np.int64),
        seen=np.zeros((capacity, shape.seen), np.uint64),
        spend_currency=np.zeros((capacity, CURRENCIES), np.uint32),
        spend_micros=np.zeros((capacity, CURRENCIES), np.float64),
        vector=np.zeros((capacity, shape.vector), np.int8),
        touched_at=np.zeros(capacity, np.int64),
        used=np.zeros(capacity, np.int64),
    )


def clear(users: Users, slots: NDArray[np.int64]) -> None:
    """Make slots blank. Lists keep what was in them: their counts are zero."""
    users.head[slots] = np.zeros((), HEAD)
    users.touched_at[slots] = 0


def pack(users: Users, slots: NDArray[np.int64], causes: list[bytes]) -> list[bytes]:
    """The rows of users, one a slot; `causes` are the event ids behind unpublished changes, b"" for none."""
    tails, tail_at = ragged(causes)
    out, at = _pack(slots, _bytes(users.head), _counts(users), *_lists(users), tails, tail_at)
    out[at[:-1]] = LAYOUT
    out[at[:-1] + 1] = np.where(users.head["held_until"][slots] != 0, HELD, 0)
    raw = out.tobytes()
    ends = at.tolist()
    return [raw[ends[i] : ends[i + 1]] for i in range(len(slots))]


def unpack(users: Users, slots: NDArray[np.int64], rows: list[bytes]) -> list[bytes]:
    """Read rows into slots; returns their causes. Raises StateError for rows of a newer layout, before any is read."""
    for row in rows:
        if row[0] > LAYOUT:
            raise StateError(f"state layout {row[0]} is newer than this worker's {LAYOUT}: upgrade the worker")
    raw, at = ragged(rows)
    tail_at = _unpack(slots, raw, at, _bytes(users.head), _counts(users), users.head["seen_next"], *_lists(users))
    return [row[tail:] for row, tail in zip(rows, (tail_at - at[:-1]).tolist(), strict=True)]


def held_until(row: bytes) -> int:
    """When the held-back change of a stored row is due, in ms; 0 where there is none. Reads the row in place."""
    if not row[1] & HELD:
        return 0
    return int.from_bytes(row[2 + _HELD_AT : 10 + _HELD_AT], "little")


def published_at(row: bytes) -> int:
    """When the user of a stored row was last published, in ms; 0 for never. Reads the row in place."""
    return int.from_bytes(row[2 + _PUBLISHED_AT : 10 + _PUBLISHED_AT], "little")


_HELD_AT: Final = int(HEAD.fields["held_until"][1])  # type: ignore[index]
_PUBLISHED_AT: Final = int(HEAD.fields["published_at"][1])  # type: ignore[index]


def ragged(parts: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Byte strings end to end, and where each begins (with the end of the last)."""
    at = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=at[1:])
    return np.frombuffer(b"".join(parts) or b"\0", np.uint8), at


def _bytes(column: NDArray[np.generic]) -> NDArray[np.uint8]:
    return column.view(np.uint8).reshape(len(column), -1)


def _counts(users: Users) -> NDArray[np.uint16]:
    return users.head["counts"]


def _lists(users: Users) -> tuple[tuple[NDArray[np.uint8], ...], NDArray[np.int64], NDArray[np.int64]]:
    """Byte views of the lists, the size of an entry of each, the count that each goes by."""
    columns = [getattr(users, name) for name, _ in LISTS]
    views = tuple(_bytes(column.reshape(len(column), -1)) for column in columns)
    entry = [column.itemsize * int(np.prod(column.shape[2:])) for column in columns]
    return views, np.array(entry, np.int64), np.array([count for _, count in LISTS], np.int64)


@njit(cache=True)
def _pack(slots, head, counts, lists, entry, count_of, tails, tail_at):  # type: ignore[no-untyped-def]
    n = len(slots)
    at = np.zeros(n + 1, np.int64)
    for i in range(n):
        size = 2 + head.shape[1] + tail_at[i + 1] - tail_at[i]
        for c in range(len(entry)):
            size += counts[slots[i], count_of[c]] * entry[c]
        at[i + 1] = at[i] + size
    out = np.empty(at[n], np.uint8)
    for i in range(n):
        s, o = slots[i], at[i] + 2
        out[o : o + head.shape[1]] = head[s]
        o += head.shape[1]
        for c in range(len(entry)):
            size = counts[s, count_of[c]] * entry[c]
            out[o : o + size] = lists[c][s, :size]
            o += size
        out[o : at[i + 1]] = tails[tail_at[i] : tail_at[i + 1]]
    return out, at


@njit(cache=True)
def _unpack(slots, raw, at, head, counts, seen_next, lists, entry, count_of):  # type: ignore[no-untyped-def]
    """Where each row's tail begins."""
    tail_at = np.zeros(len(slots), np.int64)
    for i in range(len(slots)):
        s, o = slots[i], at[i] + 2
        head[s] = raw[o : o + head.shape[1]]
        o += head.shape[1]
        for c in range(len(entry)):
            size = counts[s, count_of[c]] * entry[c]
            if count_of[c] == N_SEEN:
                _fit_ring(raw[o : o + size], seen_next[s] * entry[c], lists[c][s])
            else:
                kept = min(size, lists[c].shape[1])
                lists[c][s, :kept] = raw[o : o + kept]
            o += size
        tail_at[i] = o
        _fit_counts(counts[s], seen_next, s, lists, entry, count_of)
    return tail_at


@njit(cache=True)
def _fit_ring(stored, oldest, out):  # type: ignore[no-untyped-def]
    """A ring as it is if its column has just this width; else the newest that fit, in the order of arrival."""
    if len(stored) == len(out):
        out[:] = stored
        return
    ordered = np.concatenate((stored[oldest:], stored[:oldest]))
    size = min(len(stored), len(out))
    out[:size] = ordered[len(stored) - size :]


@njit(cache=True)
def _fit_counts(counts, seen_next, s, lists, entry, count_of):  # type: ignore[no-untyped-def]
    for c in range(len(entry)):
        width = lists[c].shape[1] // entry[c]
        n = counts[count_of[c]]
        if count_of[c] == N_SEEN:
            seen_next[s] = (seen_next[s] if n == width else min(n, width)) % width
        if count_of[c] == N_VECTOR:
            counts[N_VECTOR] = n if n == width else 0
        else:
            counts[count_of[c]] = min(n, width)
