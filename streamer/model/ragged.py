"""Rows of weighted keys in one pool, each a small hash table: what transitions are kept in, by owners and by readers.

Row i has `room[i]` places (a power of two) from `at[i]` on, `size[i]` of them taken: `keys`, 0 where a place is free,
and `weights` beside them. A key stands at its hash's place or at the next free one after it. A row that is three
quarters full moves to the end of the pool with twice the room; one that has `most` keys already drops its weakest
quarter. A dropped key starts anew when it comes back: what is strong stays, and a newcomer has the time of a quarter of
the row to become so. Places that rows moved away from are not used again: that wastes less than the rows take. A pool
that may not grow any more is pressed: rows end to end, each with half as many keys at most, the strongest.

A worked number: most 6, keys 1 to 6 of weights 4, 1, 3, 2, 6, 5, and a seventh comes: key 2 leaves.

>>> rows = Rows(width=1, most=6)
>>> rows.reach(1)
>>> for key, weight in ((1, 4.0), (2, 1.0), (3, 3.0), (4, 2.0), (5, 6.0), (6, 5.0), (7, 1.0)):
...     rows.pool.weights[put(rows.pool, 0, key), 0] = weight
>>> sorted(rows.row(0)[0].tolist())
[1, 3, 4, 5, 6, 7]

Reference: pruning in rounds is that of Manku and Motwani 2002, "Approximate frequency counts over data streams".
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf

FIRST_ROOM: Final = 8  # most items have few neighbours
FEWEST: Final = 8  # keys a row, below which a full pool takes no more
UNLIMITED: Final = 1 << 62


class Pool(NamedTuple):
    """The arrays, as kernels take them."""

    at: NDArray[np.int64]
    size: NDArray[np.int64]
    room: NDArray[np.int64]
    keys: NDArray[np.uint64]
    weights: NDArray[np.float32]  # [places, width]
    used: NDArray[np.int64]  # [1] places given out
    most: int
    spare_keys: NDArray[np.uint64]  # [room of a full row] for a row that is set up anew
    spare_weights: NDArray[np.float32]  # the same
    totals: NDArray[np.float32]


class Copied(NamedTuple):
    """Keys u64[n] and weights f32[n, width] of some rows, one after the other, each up to its place in `ends`."""

    ends: NDArray[np.int64]
    keys: NDArray[np.uint64]
    weights: NDArray[np.float32]


class Rows:
    """Rows 0, 1, … of at most `most` keys (above 0), each with `width` weights ≥ 0."""

    def __init__(self, width: int, most: int, limit: int = UNLIMITED) -> None:
        self.limit = limit  # of places
        index, places = np.zeros(0, np.int64), 1 << (8 * most).bit_length()
        self.pool = Pool(
            index,
            index.copy(),
            index.copy(),
            np.zeros(places, np.uint64),
            np.zeros((places, width), np.float32),
            np.zeros(1, np.int64),
            most,
            np.zeros(4 * most + FIRST_ROOM, np.uint64),
            np.zeros((4 * most + FIRST_ROOM, width), np.float32),
            np.zeros(4 * most + FIRST_ROOM, np.float32),
        )

    def reach(self, rows: int) -> None:
        """Have at least so many rows; new ones are empty."""
        pool = self.pool
        if rows > len(pool.at):
            more = np.zeros(max(rows, 2 * len(pool.at)) - len(pool.at), np.int64)
            at, size, room = (np.concatenate([column, more]) for column in (pool.at, pool.size, pool.room))
            self.pool = pool._replace(at=at, size=size, room=room)

    def reserve(self) -> None:
        """Have all places up to the limit at once: address space only, memory is taken as places are used.

        A pool that doubles holds everything up while it is copied: 85 ms were seen, of a worker's event loop.
        """
        self._lengthen(max(self.limit, len(self.pool.keys)))

    def make_room(self) -> bool:
        """Double the pool; at its limit, keep only the strongest keys of each row. False where neither can be done."""
        if 2 * len(self.pool.keys) <= self.limit:
            self._lengthen(2 * len(self.pool.keys))
            return True
        while self.pool.most > FEWEST:
            self._press(self.pool.most // 2)
            if 4 * int(self.pool.used[0]) <= 3 * len(self.pool.keys):
                return True
        return False

    def _press(self, most: int) -> None:
        """Set all rows up anew, end to end, with so many keys at most. Cost: 20 ns a key."""
        old = self.pool
        fresh = Rows(old.weights.shape[1], most).pool
        self.pool = fresh._replace(
            at=np.zeros_like(old.at),
            size=np.zeros_like(old.size),
            room=np.zeros_like(old.room),
            keys=np.zeros(old.keys.shape, np.uint64),  # not zeros_like, which would take all the memory now
            weights=np.zeros(old.weights.shape, np.float32),
        )
        _copy_strongest(old, self.pool)

    def _lengthen(self, places: int) -> None:
        pool, used = self.pool, int(self.pool.used[0])
        keys, weights = np.zeros(places, np.uint64), np.zeros((places, pool.weights.shape[1]), np.float32)
        keys[:used], weights[:used] = pool.keys[:used], pool.weights[:used]
        self.pool = pool._replace(keys=keys, weights=weights)

    def row(self, i: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Keys u64[n] and weights f32[n, width] of a row, copied."""
        _, keys, weights = self.take(np.array([i]))
        return keys, weights

    def take(self, rows: NDArray[np.int64]) -> Copied:
        """The keys of many rows, copied."""
        ends = np.cumsum(self.pool.size[rows])
        total = int(ends[-1]) if len(rows) else 0
        keys, weights = np.empty(total, np.uint64), np.empty((total, self.pool.weights.shape[1]), np.float32)
        _take(self.pool, rows, keys, weights)
        return Copied(ends, keys, weights)

    def fill(self, i: int, keys: NDArray[np.uint64], weights: NDArray[np.float32]) -> None:
        """Put distinct keys into an empty row."""
        while not has_room(self.pool, 1) and self.make_room():
            pass
        _fill(self.pool, i, keys, weights)

    def move(self, source: int, target: int) -> None:
        """Row `source` becomes row `target`, whose keys are gone; `source` is empty afterwards."""
        pool = self.pool
        clear(pool, target)
        for column in (pool.at, pool.size, pool.room):
            column[target], column[source] = column[source], column[target]


@leaf
def has_room(pool, rows):  # type: ignore[no-untyped-def]
    """Whether `rows` different rows may be put into, however often: to ask before rows are changed."""
    return pool.used[0] + 8 * pool.most * rows <= len(pool.keys)


@leaf
def _take(pool, rows, keys, weights):  # type: ignore[no-untyped-def]
    n = 0
    for i in rows:
        for e in range(pool.at[i], pool.at[i] + pool.room[i]):
            if pool.keys[e] != 0:
                keys[n] = pool.keys[e]
                for m in range(weights.shape[1]):
                    weights[n, m] = pool.weights[e, m]
                n += 1


@leaf
def _copy_strongest(old, pool):  # type: ignore[no-untyped-def]
    """The strongest keys of each row of `old`, as many as `pool` takes of them, into its rows, which are blank."""
    for i in range(len(old.at)):
        n = _set_aside(old, i)
        kept = min(n, pool.most)
        if kept == 0:
            continue
        cut, equal = _weakest(old.totals, n, n - kept)
        room = FIRST_ROOM
        while 4 * kept > 3 * room:
            room *= 2
        pool.at[i], pool.room[i] = pool.used[0], room
        pool.used[0] += room
        for e in range(n):
            total = _total(old.spare_weights, e)
            if total < cut:
                continue
            if total == cut and equal > 0:
                equal -= 1
                continue
            at = put(pool, i, old.spare_keys[e])
            for m in range(pool.weights.shape[1]):
                pool.weights[at, m] = old.spare_weights[e, m]


@leaf
def clear(pool, i):  # type: ignore[no-untyped-def]
    """Empty row i; it keeps its room."""
    pool.size[i] = 0
    for e in range(pool.at[i], pool.at[i] + pool.room[i]):
        pool.keys[e] = 0


@leaf
def seek(keys, start, room, key):  # type: ignore[no-untyped-def]
    """The place of a u64 key in the row of `room` > 0 places from `start` on, or the free place where it belongs."""
    mask = np.uint64(room - 1)
    place = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40) & mask  # Fibonacci hashing (Knuth 6.4)
    while True:
        at = start + np.int64(place)
        if keys[at] == key or keys[at] == 0:
            return at
        place = (place + np.uint64(1)) & mask


@leaf
def put(pool, i, key):  # type: ignore[no-untyped-def]
    """The place of a u64 key in row i; a new one has weights of 0. Places of the row found before may have changed."""
    at = np.int64(-1)
    if pool.room[i] > 0:
        at = seek(pool.keys, pool.at[i], pool.room[i], key)
        if pool.keys[at] == key:
            return at
    if pool.size[i] >= pool.most:
        _rebuild(pool, i, pool.room[i], max(pool.most // 4, 1))
        at = seek(pool.keys, pool.at[i], pool.room[i], key)
    elif 4 * (pool.size[i] + 1) > 3 * pool.room[i]:
        _rebuild(pool, i, max(2 * pool.room[i], FIRST_ROOM), 0)
        at = seek(pool.keys, pool.at[i], pool.room[i], key)
    pool.size[i] += 1
    pool.keys[at] = key
    for m in range(pool.weights.shape[1]):
        pool.weights[at, m] = 0
    return at


@leaf
def _rebuild(pool, i, room, drop):  # type: ignore[no-untyped-def]
    """Set row i up in `room` places, without its `drop` weakest keys; of equals the first in their places go."""
    n = _set_aside(pool, i)
    cut, equal = _weakest(pool.totals, n, drop)
    clear(pool, i)
    if room != pool.room[i]:
        pool.at[i], pool.room[i] = pool.used[0], room
        pool.used[0] += room
    for e in range(n):
        total = _total(pool.spare_weights, e)
        if total < cut:
            continue
        if total == cut and equal > 0:
            equal -= 1
            continue
        at = seek(pool.keys, pool.at[i], room, pool.spare_keys[e])
        pool.size[i] += 1
        pool.keys[at] = pool.spare_keys[e]
        for m in range(pool.weights.shape[1]):
            pool.weights[at, m] = pool.spare_weights[e, m]


@leaf
def _set_aside(pool, i):  # type: ignore[no-untyped-def]
    n = 0
    for e in range(pool.at[i], pool.at[i] + pool.room[i]):
        if pool.keys[e] != 0:
            pool.spare_keys[n] = pool.keys[e]
            for m in range(pool.weights.shape[1]):
                pool.spare_weights[n, m] = pool.weights[e, m]
            pool.totals[n] = _total(pool.weights, e)
            n += 1
    return n


@leaf
def _total(weights, e):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for m in range(weights.shape[1]):
        total += weights[e, m]
    return total


@leaf
def _weakest(totals, n, drop):  # type: ignore[no-untyped-def]
    """The strongest of the `drop` weakest totals, and how many of just this total are among them. Reorders `totals`."""
    if drop == 0:
        return np.float32(-np.inf), 0
    cut = _select(totals, n, drop - 1)
    below = 0
    for e in range(n):
        below += totals[e] < cut
    return cut, drop - below


@leaf
def _select(values, n, k):  # type: ignore[no-untyped-def]
    """The k-th least of the first n values, in place (Hoare's quickselect)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@leaf
def _fill(pool, i, keys, weights):  # type: ignore[no-untyped-def]
    for n in range(len(keys)):
        at = put(pool, i, keys[n])
        for m in range(weights.shape[1]):
            pool.weights[at, m] = weights[n, m]
