"""Rows: how users are stored, in RocksDB and in the changelog. Little-endian, layout 3:

    u8 layout | u8 flags (bit 0: a change is held) | HEAD | tags | recent items | event ids | spend | vector | cause

Of every list only the used part stands in a row; HEAD's `counts` say how much. `cause` is the event_id behind a change
that is not published yet. An example: a user with 2 tags, 3 recent items, 3 event ids, no spending and no vector takes
2 + 176 + 2·48 + 3·16 + 3·8 = 346 bytes; one with 30 tags and full lists 2.8 KB; a full one 13.8 KB.

Widths are settings, and may change between two starts: of recent items and event ids the newest are kept, a vector of
another width is dropped. Rows of layouts 1 and 2 are read, and written anew in layout 3 with the user's next change:
their tags know no events by number, and of the time since ever what MAIN does.

What a partition learned of all its users (`model.tag_mix`) is a row of its own: `pack_learned`.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import StateError
from streamer.model.compiled import leaf
from streamer.model.interests import EVER, MAIN, TAG
from streamer.model.interests import RECENT as RECENT_SCALE
from streamer.model.tag_mix import Learned, new_learned
from streamer.pipeline.layout import (
    ENTRY_BYTES,
    HEAD,
    LEVELS,
    LISTS,
    N_RECENT,
    N_SEEN,
    N_SPEND,
    N_TAGS,
    N_VECTOR,
    RECENT,
    SEEN,
    SPEND,
    UNIT,
    Users,
    ensure_room,
)

LAYOUT: Final = 3
LEARNED_LAYOUT: Final = 1
TAGS_AN_EVENT: Final = 3  # what rows before layout 3 are taken to have had: shop items have 2 to 4 on average
HELD: Final = 1  # flag: the row has a change that is not published yet
_HEAD_AT: Final = 2  # behind layout and flags
_HEAD_BYTES: Final = HEAD.itemsize


def pack(users: Users, slots: NDArray[np.int64], causes: list[bytes]) -> list[bytes]:
    """The rows of users, one a slot; `causes` are the event ids behind unpublished changes, b"" for none."""
    tails, tail_at = ragged(causes)
    counts = users.head["counts"][slots].astype(np.int64)
    size = _HEAD_AT + _HEAD_BYTES + counts[:, :LISTS] @ np.array(ENTRY_BYTES) + counts[:, N_VECTOR] + np.diff(tail_at)
    at = np.concatenate([[0], np.cumsum(size)])
    out = np.empty(at[-1], np.uint8)
    _pack(users, slots, *_bytes(users), tails, tail_at, out, at)
    out[at[:-1]] = LAYOUT
    out[at[:-1] + 1] = np.where(users.head["held_until"][slots] != 0, HELD, 0)
    raw, ends = out.tobytes(), at.tolist()
    return [raw[ends[i] : ends[i + 1]] for i in range(len(slots))]


def unpack(users: Users, slots: NDArray[np.int64], rows: list[bytes]) -> list[bytes]:
    """Read rows into blank slots; returns their causes. Raises StateError for a newer layout, before any is read."""
    for row in rows:
        if row[0] > LAYOUT:
            raise StateError(f"state layout {row[0]} is newer than this worker's {LAYOUT}: upgrade the worker")
    rows = [row if row[0] == LAYOUT else _upgraded(row) for row in rows]
    raw, at = ragged(rows)
    tail_at = np.zeros(len(rows), np.int64)
    _unpack(users, slots, *_bytes(users), raw, at, tail_at)
    return [row[tail:] for row, tail in zip(rows, (tail_at - at[:-1]).tolist(), strict=True)]


def held_until(row: bytes) -> int:
    """When the held-back change of a stored row is due, in ms; 0 where there is none. Reads the row in place."""
    return _number(row, "held_until") if row[1] & HELD else 0


def published_at(row: bytes) -> int:
    """When the user of a stored row was last published, in ms; 0 for never. Reads the row in place."""
    return _number(row, "published_at")


def as_of(row: bytes) -> int:
    """The newest ts applied to the user of a stored row, in ms. Reads the row in place."""
    return _number(row, "as_of")


def blank(row: bytes) -> bytes | None:
    """A row with nothing but the version of another, of any layout, also one to come; None for who was never published.

    The version stands first in all of them.
    """
    version = row[_HEAD_AT : _HEAD_AT + 4]
    return bytes([LAYOUT, 0]) + version + bytes(_HEAD_BYTES - 4) if any(version) else None


def is_blank(row: bytes) -> bool:
    """Whether no event of the user of a stored row ever counted, or since its state was dropped. Reads it in place."""
    start = _HEAD_AT + _OFFSETS["counts"] + 2 * N_SEEN
    return row[start : start + 2] == b"\0\0"


def _number(row: bytes, field: str) -> int:
    start = _HEAD_AT + _OFFSETS[field]
    return int.from_bytes(row[start : start + 8], "little")


_OFFSETS: Final = {field: int(where[1]) for field, where in HEAD.fields.items()}  # type: ignore[union-attr]


def ragged(parts: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Byte strings end to end, and where each begins (with the end of the last)."""
    at = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=at[1:])
    return np.frombuffer(b"".join(parts) or b"\0", np.uint8), at


def _bytes(users: Users) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Heads [capacity, bytes], the arena, and vectors [capacity, dim], all as bytes."""
    head = users.head.view(np.uint8).reshape(len(users.head), -1)
    return head, users.seens.view(np.uint8), users.vector.view(np.uint8)


@leaf
def _pack(users, slots, head, arena, vector, tails, tail_at, out, at):  # type: ignore[no-untyped-def]
    for i in range(len(slots)):
        s, o = slots[i], at[i] + _HEAD_AT
        o = _copy(out, o, head[s])
        counts = users.head[s].counts
        for which in range(LISTS):
            start = users.block[s] * UNIT + users.start[users.level[s], which]
            o = _copy(out, o, arena[start : start + counts[which] * ENTRY_BYTES[which]])
        o = _copy(out, o, vector[s, : counts[N_VECTOR]])
        _copy(out, o, tails[tail_at[i] : tail_at[i + 1]])


@leaf
def _copy(out, at, source):  # type: ignore[no-untyped-def]
    for k in range(len(source)):
        out[at + k] = source[k]
    return at + len(source)


@leaf
def _unpack(users, slots, head, arena, vector, raw, at, tail_at):  # type: ignore[no-untyped-def]
    most = users.room[LEVELS - 1]
    for i in range(len(slots)):
        s, o = slots[i], at[i] + _HEAD_AT
        _copy(head[s], 0, raw[o : o + _HEAD_BYTES])
        o += _HEAD_BYTES
        stored = users.head[s].counts
        counts = (np.int64(stored[0]), np.int64(stored[1]), np.int64(stored[2]), np.int64(stored[3]))
        for which in range(LISTS):
            stored[which] = 0  # nothing is in the block yet that would have to move along
        ensure_room(users, s, *counts)
        for which in range(LISTS):
            size = counts[which] * ENTRY_BYTES[which]
            start = users.block[s] * UNIT + users.start[users.level[s], which]
            stored[which] = min(counts[which], most[which])
            if which == N_SEEN:
                first = start // 8
                _unpack_ring(raw[o : o + size], users.head[s], users.seens[first : first + most[N_SEEN]])
            else:
                _copy(arena, start, raw[o : o + stored[which] * ENTRY_BYTES[which]])
            o += size
        dim = np.int64(stored[N_VECTOR])
        if dim == vector.shape[1]:
            _copy(vector[s], 0, raw[o : o + dim])
        else:
            stored[N_VECTOR] = 0
        tail_at[i] = o + dim


@leaf
def _unpack_ring(raw, head, out):  # type: ignore[no-untyped-def]
    """Event ids as they stood if the ring has the same width; else the newest that fit, in the order of arrival."""
    n, next_one = len(raw) // 8, np.int64(head.seen_next)
    was_full = next_one < n
    first = next_one if was_full else 0
    if was_full and n == len(out):
        first = 0
    kept = min(n, len(out))
    for j in range(kept):
        out[j] = _word(raw, 8 * ((first + n - kept + j) % n))
    if not (was_full and n == len(out)):
        head.seen_next = kept % len(out)


@leaf
def _word(raw, at):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(raw[at + k]) << np.uint64(8 * k)
    return word


def pack_learned(learned: Learned) -> bytes:
    """The row of what a partition learned: u8 layout, and the numbers of `Learned` in their order."""
    return bytes([LEARNED_LAYOUT]) + b"".join(np.ascontiguousarray(numbers).tobytes() for numbers in learned)


def unpack_learned(row: bytes | None) -> Learned:
    """What a partition learned; nothing where it has no row. Raises StateError for a newer layout."""
    learned = new_learned()
    if row is None:
        return learned
    if row[0] > LEARNED_LAYOUT:
        raise StateError(f"state layout {row[0]} is newer than this worker's {LEARNED_LAYOUT}: upgrade the worker")
    fields = _Fields(row, 1)
    return Learned(*(fields.take(field.dtype, field.size).reshape(field.shape).copy() for field in learned))


# HEAD up to layout 2: as far as `counts` as now, then `seen_next` with padding before it, and nothing more.
_OLD_HEAD_BYTES, _OLD_SEEN_NEXT = 168, 164
_OLD_TAG: Final = np.dtype([("tag", "<u8"), ("ts", "<i8"), ("weight", "<f4", (3,)), ("published", "<f4")])


def _upgraded(row: bytes) -> bytes:
    """A row of an older layout in this one. Layout 1 had its lists field by field."""
    n = np.frombuffer(row, "<u2", LISTS + 1, _HEAD_AT + _OFFSETS["counts"]).tolist()
    fields = _Fields(row, _HEAD_AT + _OLD_HEAD_BYTES)
    lists = (_layout_1 if row[0] == 1 else _layout_2)(fields, n)
    start, at = row[1 : _HEAD_AT + _OFFSETS["seen_next"]], _HEAD_AT + _OLD_SEEN_NEXT
    head_end = row[at : at + 2] + bytes(_HEAD_BYTES - _OFFSETS["seen_next"] - 2)
    return b"".join((bytes([LAYOUT]), start, head_end, *(each.tobytes() for each in lists), row[fields.at :]))


def _layout_2(fields: "_Fields", n: list[int]) -> tuple[NDArray[Any], ...]:
    tags = _new_tags(fields.take(_OLD_TAG, n[N_TAGS]))
    return tags, fields.take(RECENT, n[N_RECENT]), fields.take(SEEN, n[N_SEEN]), fields.take(SPEND, n[N_SPEND])


def _layout_1(fields: "_Fields", n: list[int]) -> tuple[NDArray[Any], ...]:
    tags, recents, spends = np.zeros(n[N_TAGS], _OLD_TAG), np.zeros(n[N_RECENT], RECENT), np.zeros(n[N_SPEND], SPEND)
    tags["tag"] = fields.take("<u8", len(tags))
    tags["weight"] = fields.take("<f4", 4 * len(tags)).reshape(-1, 4)[:, :3]  # the fourth never faded, and told nothing
    tags["ts"], tags["published"] = fields.take("<i8", len(tags)), fields.take("<f4", len(tags))
    recents["item"], recents["time"] = fields.take("<u8", len(recents)), fields.take("<i8", len(recents))
    seen = fields.take(SEEN, n[N_SEEN])
    spends["currency"], spends["micros"] = fields.take("<u4", len(spends)), fields.take("<f8", len(spends))
    return _new_tags(tags), recents, seen, spends


def _new_tags(old: NDArray[np.void]) -> NDArray[np.void]:
    tags = np.zeros(len(old), TAG)
    for name in ("tag", "ts", "published"):
        tags[name] = old[name]
    tags["weight"][:, :3] = old["weight"]
    tags["weight"][:, RECENT_SCALE] /= TAGS_AN_EVENT
    tags["weight"][:, EVER] = tags["weight"][:, MAIN] / TAGS_AN_EVENT
    return tags


class _Fields:
    """Arrays out of a row, one after the other."""

    def __init__(self, row: bytes, at: int) -> None:
        self._row, self.at = row, at

    def take(self, dtype: np.dtype[Any] | str, count: int) -> NDArray[Any]:
        """The next `count` numbers."""
        found = np.frombuffer(self._row, dtype, count, self.at) if count else np.zeros(0, dtype)
        self.at += found.nbytes
        return found
