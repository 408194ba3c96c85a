"""Profiles written as JSON straight from the columns: one compiled pass, no Python object a value.

What it writes decodes to the structs of `streamer.profile`; assembling those from Python objects took ten times as
long. Names are looked up in bulk before; a hash that nobody can name is left out.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.pipeline.hashing import HashTable, lookup_all
from streamer.pipeline.json_bytes import ESCAPED_BYTES, NUMBER_BYTES, Quoted, literal
from streamer.pipeline.layout import CURRENCIES, N_RECENT, Users, recent_items
from streamer.pipeline.moves import Moves
from streamer.pipeline.profile_kernel import ACTIVITY, WHATS, write_profiles
from streamer.pipeline.rows import ragged
from streamer.pipeline.top_interests import TopInterests
from streamer.profile import What

_NO_MORE: Final = Quoted()  # most know all that they are asked for: what is never added to need not be made
_BUFFER_BYTES: Final = 1 << 20  # some 300 profiles at a time: stays in the processor's cache
_TOLD: Final = b'],"changed":['  # nowhere inside a string: quotes are escaped there


class Telling(NamedTuple):
    """What is said of n users beside what stands in their rows. `reasons` are the gate's bits and those of `moves`."""

    keys: list[bytes]  # user ids in UTF-8
    causes: list[bytes]
    reasons: NDArray[np.uint8]  # [n] bits; 0: `changed` stays empty
    cosine: NDArray[np.float64]  # [n] of the vector with the published one


class Strings(NamedTuple):
    """Names as JSON: `at` of the catalogue's, and of those that are only in a partition's dictionary."""

    data: NDArray[np.uint8]
    at: NDArray[np.int64]
    more_data: NDArray[np.uint8]
    more_at: NDArray[np.int64]


class Book:
    """Names by hash: those of a catalogue's `table`, whose values index `quoted`, and those that `name_of` knows."""

    def __init__(self, table: HashTable, quoted: Quoted, name_of: Callable[[int], str | None]) -> None:
        self._table, self._quoted, self._name_of = table, quoted, name_of
        self._more, self._found = _NO_MORE, dict[int, int]()

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where the names of hashes of any shape stand: from 0 in the catalogue, from -2 down beside it; -1 nowhere."""
        flat, where = hashes.reshape(-1), np.empty(hashes.size, np.int64)
        if lookup_all(self._table.keys, self._table.values, flat, where):
            self.find_beside(flat, where)
        return where.reshape(hashes.shape)

    def find_beside(self, hashes: NDArray[np.uint64], where: NDArray[np.int64]) -> None:
        """Fill in where the names stand that the catalogue lacks: those that are below 0 in `where` i64[n]."""
        for i in np.flatnonzero((where < 0) & (hashes != 0)).tolist():
            where[i] = self._find_elsewhere(int(hashes[i]))

    def _find_elsewhere(self, key: int) -> int:
        if key not in self._found:
            name = self._name_of(key)
            self._found[key] = -1 if name is None else self._add(name)
        return self._found[key]

    def _add(self, name: str) -> int:
        if self._more is _NO_MORE:
            self._more = Quoted()
        self._more.append(name)
        return -1 - len(self._more)

    @property
    def strings(self) -> Strings:
        """What a kernel reads."""
        return Strings(self._quoted.data, self._quoted.at, self._more.data, self._more.at)

    @property
    def longest(self) -> int:
        """Bytes of the longest name."""
        return max(self._quoted.longest, self._more.longest)


class Page(NamedTuple):
    """All that a kernel needs of n users beside their columns."""

    keys: NDArray[np.uint8]
    key_at: NDArray[np.int64]
    causes: NDArray[np.uint8]
    cause_at: NDArray[np.int64]
    tag_name: NDArray[np.int64]  # [n, k]
    numbers: NDArray[np.float64]  # [n, k, 5] weight, share, recent, lift, events
    last_ts: NDArray[np.int64]  # [n, k]
    because: NDArray[np.int64]  # [n, k, BECAUSE]
    recent_name: NDArray[np.int64]
    recent_at: NDArray[np.int64]
    places: NDArray[np.int64]  # 0, 1, …: of all recent items
    vectors: NDArray[np.uint8]  # [n, 4·dim]
    model: NDArray[np.uint8]
    what: NDArray[np.int64]
    what_tag: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    move_at: NDArray[np.int64]


class Written(NamedTuple):
    """Profiles as JSON, and what the first change of each is; `activity` where nothing is told."""

    values: list[bytes]
    first: list[What]


def write(
    users: Users,
    slots: NDArray[np.int64],
    top: TopInterests,
    told: Moves,
    telling: Telling,
    vectors: NDArray[np.float32],
    model: str,
    items: Book,
    tags: Book,
) -> Written:
    """Profiles of the users in `slots`, in their order. Changes nothing."""
    recent, recent_at = recent_items(users, slots)
    page = Page(
        *ragged(telling.keys),
        *ragged(telling.causes),
        tag_name=tags.find(top.tag),
        numbers=top.numbers,
        last_ts=top.last_ts,
        because=top.because,
        recent_name=items.find(recent),
        recent_at=recent_at,
        places=np.arange(users.most[N_RECENT]),
        vectors=np.ascontiguousarray(vectors, "<f4").view(np.uint8),
        model=literal(model),
        what=told.what,
        what_tag=tags.find(told.tag),
        before=told.before,
        after=told.after,
        move_at=told.at,
    )
    texts = max(map(len, telling.keys), default=0) + max(map(len, telling.causes), default=0) + len(page.model)
    bound = bound_of(page, users, texts, items.longest, tags.longest)
    values = _write(users, slots, page, items.strings, tags.strings, bound)
    what = told.what.tolist()
    return Written(values, [WHATS[what[at] if at < end else ACTIVITY] for at, end in pairwise(told.at.tolist())])


def _write(
    users: Users, slots: NDArray[np.int64], page: Page, items: Strings, tags: Strings, bound: int
) -> list[bytes]:
    size = min(max(_BUFFER_BYTES, bound), bound * len(slots))  # one profile's stays in the cache
    out, ends = np.empty(size, np.uint8), np.zeros(len(slots) + 1, np.int64)
    values: list[bytes] = []
    while (row := len(values)) < len(slots):
        ends[row] = 0
        done = write_profiles(row, users, slots, page, items, tags, out, bound, ends)
        cuts = ends[row : done + 1].tolist()
        raw = out[: cuts[-1]].tobytes()
        values += [raw[start:end] for start, end in pairwise(cuts)]
    return values


def tell_as(value: bytes, published: bytes) -> bytes:
    """A profile with `changed` and `cause` of another of the same user, both as written here: they stand last."""
    return value[: value.rindex(_TOLD)] + published[published.rindex(_TOLD) :]


def bound_of(page: Page, users: Users, texts: int, item: int, tag: int) -> int:
    """No profile is longer, in bytes; `texts`, `item` and `tag` are those of its strings."""
    interests, because, vector = *page.because.shape[1:], 2 * page.vectors.shape[1]
    entry = 60 + item + NUMBER_BYTES
    lists = interests * (100 + tag + 6 * NUMBER_BYTES + because * entry) + int(users.most[N_RECENT]) * entry
    moves = int(np.diff(page.move_at).max()) if len(page.what) else 0
    changed = moves * (60 + tag + 2 * NUMBER_BYTES)
    spend = CURRENCIES * (8 + NUMBER_BYTES)
    return int(1000 + 40 * NUMBER_BYTES + ESCAPED_BYTES * texts + vector + lists + changed + spend)
