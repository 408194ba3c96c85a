"""Profiles written as JSON straight from the columns: one compiled pass, no Python object a value.

What it writes decodes to the structs of `streamer.profile`; assembling those from Python objects took ten times as
long. Names are looked up in bulk before; a hash that nobody can name is left out.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.pipeline import gate
from streamer.pipeline.gate import Assessed
from streamer.pipeline.hashing import HashTable, lookup_all
from streamer.pipeline.json_bytes import ESCAPED_BYTES, NUMBER_BYTES, Quoted, literal
from streamer.pipeline.layout import CURRENCIES, N_RECENT, Users, recent_items
from streamer.pipeline.profile_kernel import (
    ACTIVITY,
    ADDED,
    DROPPED,
    FIRST_PROFILE,
    HEARTBEAT,
    MOVED,
    SHIFTED,
    WHATS,
    write_profiles,
)
from streamer.pipeline.rows import ragged
from streamer.pipeline.top_interests import TopInterests
from streamer.profile import What

_BUFFER_BYTES: Final = 1 << 20  # some 300 profiles at a time: stays in the processor's cache
_PLACES: Final = 4  # decimals of the shares in `changed`
NAN: Final = float("nan")
_TOLD: Final = b'],"changed":['  # nowhere inside a string: quotes are escaped there


class Telling(NamedTuple):
    """What is said of n users beside what stands in their rows. `reasons` are the gate's bits and the two below."""

    keys: list[bytes]  # user ids in UTF-8
    causes: list[bytes]
    reasons: NDArray[np.uint8]  # [n] bits; 0: `changed` stays empty
    cosine: NDArray[np.float64]  # [n] of the vector with the published one


BEAT, ACTIVE = 8, 16  # reasons beside the gate's: a heartbeat; nothing but further events


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
        self._more, self._found = Quoted(), dict[int, int]()

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where the names of hashes of any shape stand: from 0 in the catalogue, from -2 down beside it; -1 nowhere."""
        flat = np.ascontiguousarray(hashes).reshape(-1)
        where = np.empty(len(flat), np.int32)
        lookup_all(self._table.keys, self._table.values, flat, where)
        for i in np.flatnonzero((where < 0) & (flat != 0)).tolist():
            where[i] = self._find_elsewhere(int(flat[i]))
        return where.reshape(hashes.shape).astype(np.int64)

    def _find_elsewhere(self, key: int) -> int:
        if key not in self._found:
            name = self._name_of(key)
            self._found[key] = -1 if name is None else -2 - len(self._more)
            if name is not None:
                self._more.append(name)
        return self._found[key]

    @property
    def strings(self) -> Strings:
        """What a kernel reads."""
        return Strings(self._quoted.data, self._quoted.at, self._more.data, self._more.at)

    @property
    def longest(self) -> int:
        """Bytes of the longest name."""
        return max(self._quoted.longest, self._more.longest)


class Moves(NamedTuple):
    """Entries of `changed`, one user's after the other's: row i has `at[i] : at[i + 1]`. NaN: not said."""

    what: NDArray[np.int64]
    tag: NDArray[np.uint64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    at: NDArray[np.int64]


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


def moves(users: Users, slots: NDArray[np.int64], assessed: Assessed, telling: Telling) -> Moves:
    """Why each profile goes out: that it is a heartbeat, then interests by the size of their move, then the rest.

    Of a first profile, that it is one says it all.
    """
    if not telling.reasons.any():  # one profile that somebody asks for: half of its time would go into nothing
        return Moves(*(*_NOTHING, np.zeros(len(slots) + 1, np.int64)))
    first = telling.reasons & gate.FIRST != 0
    later = np.where(first, 0, telling.reasons)
    lost = np.flatnonzero((later & gate.INTERESTS != 0) & (users.head["lost_tag"][slots] != 0))
    turned = np.flatnonzero(later & gate.VECTOR)
    parts = (
        _entries(np.flatnonzero(telling.reasons & BEAT), HEARTBEAT, rank=-3),
        _entries(np.flatnonzero(first), FIRST_PROFILE, rank=-2),
        _interest_moves(users, slots, assessed, later & gate.INTERESTS != 0),
        _entries(lost, DROPPED, rank=1, tag=users.head["lost_tag"][slots[lost]], after=0),
        _entries(turned, MOVED, rank=2, before=1, after=telling.cosine[turned]),
        _entries(np.flatnonzero(telling.reasons & ACTIVE), ACTIVITY, rank=3),
    )
    rows, ranks, what, tag, before, after = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((ranks, rows))
    at = np.searchsorted(rows[order], np.arange(len(slots) + 1))
    return Moves(what[order], tag[order], before[order], after[order], at)


Entries = tuple[NDArray[Any], ...]  # row, rank, what, tag, before, after
_WHAT_OF: Final = np.array([-1, ADDED, DROPPED, SHIFTED])  # by the gate's status


def _entries(
    rows: NDArray[np.int64], what: int, rank: int, tag: Any = 0, before: Any = NAN, after: Any = NAN
) -> Entries:
    columns = (np.float64(rank), np.int64(what), np.uint64(tag), np.float64(before), np.float64(after))
    return rows, *(np.broadcast_to(column, rows.shape) for column in columns)


# Copies can be written to, as the columns of told moves can: for other arrays the kernel would be compiled once more.
_NOTHING: Final = [np.array(column) for column in _entries(np.zeros(0, np.int64), ACTIVITY, rank=0)[2:]]


def _interest_moves(users: Users, slots: NDArray[np.int64], assessed: Assessed, told: NDArray[np.bool_]) -> Entries:
    """The tags whose share moved, of those users of whom that is told; the largest move first."""
    of_tag = np.repeat(np.arange(len(slots)), np.diff(assessed.at))
    moved = np.flatnonzero((assessed.status != gate.SAME) & told[of_tag])
    rows = of_tag[moved]
    tags = users.tags[users.block[slots[rows]] + moved - assessed.at[rows]]
    before = np.maximum(tags["published"], 0).astype(np.float64).round(_PLACES)
    after = assessed.share[moved].round(_PLACES)
    what = _WHAT_OF[assessed.status[moved]]
    return rows, -abs(after - before), what, tags["tag"], before, after


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
    values = _write(users, slots, page, items.strings, tags.strings, _bound(page, users, items.longest, tags.longest))
    first = np.append(told.what, ACTIVITY)[np.where(told.at[:-1] < told.at[1:], told.at[:-1], -1)]
    return Written(values, [WHATS[what] for what in first.tolist()])


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


def _bound(page: Page, users: Users, item: int, tag: int) -> int:
    """No profile is longer, in bytes."""
    interests, because, vector = *page.because.shape[1:], 2 * page.vectors.shape[1]
    entry = 60 + item + NUMBER_BYTES
    lists = interests * (100 + tag + 6 * NUMBER_BYTES + because * entry) + int(users.most[N_RECENT]) * entry
    changed = int(np.diff(page.move_at).max(initial=0)) * (60 + tag + 2 * NUMBER_BYTES)
    spend = CURRENCIES * (8 + NUMBER_BYTES)
    texts = int(np.diff(page.key_at).max(initial=0) + np.diff(page.cause_at).max(initial=0)) + len(page.model)
    return int(1000 + 40 * NUMBER_BYTES + ESCAPED_BYTES * texts + vector + lists + changed + spend)
