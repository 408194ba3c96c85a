"""Records of one topic partition in columns over the text in which Kafka packs them: one kernel unpacks a whole fetch.

None of them is an object before somebody asks for it: of events nobody does, but for those that are rejected.

Record batch, format 2 (kafka.apache.org/documentation/#recordbatch), once it is decompressed: records one after
another. Record: its length, one byte of attributes, time and offset as differences to the batch's, key, value, headers;
numbers are zigzag varints, and what has a length of -1 is null.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.pipeline.words import SPARE

RECORD_BYTES: Final = 64  # of the columns, for a record

Headers = tuple[tuple[str, bytes | None], ...]


class CorruptError(ValueError):
    """A batch of records does not add up."""


class AnyRecord(Protocol):
    """What a record has, whoever brings it (aiokafka's ConsumerRecord fits)."""

    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class Record(NamedTuple):
    """One record. Bytes of a header's name that are not UTF-8 read as `\\xff`."""

    key: bytes | None
    value: bytes | None
    timestamp: int  # ms
    offset: int
    headers: Headers = ()


class Packed(NamedTuple):
    """A record batch, decompressed. Records before the offset `wanted` are passed over."""

    body: bytes
    size: int  # records
    base_offset: int
    offset: int  # of the last record
    first_ms: int
    fixed_ms: int  # the time of all records; -1: each has its own
    wanted: int = 0


class Columns(NamedTuple):
    """Of n records. Places are in the text; one that ends before it begins is null."""

    at: NDArray[np.int64]  # [n + 1] where each begins, and behind the last
    offset: NDArray[np.int64]
    timestamp: NDArray[np.int64]  # ms
    key: NDArray[np.int64]  # [n, 2] first byte and behind the last
    value: NDArray[np.int64]  # [n, 2] the same
    headers: NDArray[np.int64]  # [n] from the record's begin to its headers; 0: it has none


class _Batches(NamedTuple):
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    size: NDArray[np.int64]  # records
    base_offset: NDArray[np.int64]
    first_ms: NDArray[np.int64]
    fixed_ms: NDArray[np.int64]
    wanted: NDArray[np.int64]


class Records:
    """Records in order. Behind the last byte of `text` that is in use there are SPARE more."""

    def __init__(self, text: bytes, columns: Columns) -> None:
        self.text, self.columns = text, columns

    @classmethod
    def of(cls, records: Iterable[AnyRecord]) -> "Records":
        """Records that somebody else has, without their headers."""
        each = list(records)
        parts = [part or b"" for record in each for part in (record.key, record.value)]
        ends = np.cumsum([0, *map(len, parts)])
        is_null = np.array([[record.key is None, record.value is None] for record in each], np.bool_).reshape(-1, 2)
        key, value = (np.stack([ends[n:-1:2], ends[n + 1 :: 2] - is_null[:, n]], axis=1) for n in range(2))
        columns = Columns(
            ends[::2].astype(np.int64),
            np.array([record.offset for record in each], np.int64),
            np.array([record.timestamp for record in each], np.int64),
            key,
            value,
            np.zeros(len(each), np.int64),
        )
        return cls(b"".join([*parts, bytes(SPARE)]), columns)

    def __len__(self) -> int:
        return len(self.columns.offset)

    def __getitem__(self, i: int) -> Record:
        i = range(len(self))[i]
        return next(iter(self.part(i, i + 1)))

    def __iter__(self) -> Iterator[Record]:
        at, *others = (column.tolist() for column in self.columns)
        for begin, offset, timestamp, key, value, place in zip(at[:-1], *others, strict=True):
            headers = _headers(self.text, begin + place) if place else ()
            yield Record(self._bytes(key), self._bytes(value), timestamp, offset, headers)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return int(self.columns.at[-1] - self.columns.at[0]) + RECORD_BYTES * len(self)

    @property
    def next_offset(self) -> int:
        """What follows on the last record."""
        return int(self.columns.offset[-1]) + 1

    @property
    def have_headers(self) -> bool:
        """Whether any record has one."""
        return bool(self.columns.headers.any())

    @property
    def keys(self) -> list[bytes]:
        """The key of each record; an empty one where there is none."""
        return strings(self.text, self.columns.key)

    def part(self, first: int, behind: int) -> "Records":
        """Records from number `first` to before `behind`; they share the text."""
        at, *others = self.columns
        return Records(self.text, Columns._make([at[first : behind + 1], *(column[first:behind] for column in others)]))

    def pairs(self, some: NDArray[np.int64]) -> list[tuple[bytes | None, bytes | None]]:
        """Key and value of the records of these numbers."""
        keys, values = self.columns.key[some].tolist(), self.columns.value[some].tolist()
        return [(self._bytes(key), self._bytes(value)) for key, value in zip(keys, values, strict=True)]

    def trimmed(self) -> "Records":
        """The same; a copy where most of the text is of others, who should not be kept for it."""
        own = int(self.columns.at[-1] - self.columns.at[0])
        return self if 2 * own >= len(self.text) - SPARE else _joined([self])

    def _bytes(self, place: Sequence[int]) -> bytes | None:
        first, behind = place
        return None if behind < first else self.text[first:behind]


def strings(text: bytes, places: NDArray[np.int64]) -> list[bytes]:
    """What stands in a text at places [n, 2], each its first byte and the one behind its last; empty for null."""
    first, behind = places.T
    return [text[i:j] for i, j in zip(first.tolist(), np.maximum(first, behind).tolist(), strict=True)]


def join(parts: Sequence[Records]) -> Records:
    """Records of some parts as one. A single part stays as it is."""
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[Records]) -> Records:
    texts, moved, end = list[bytes](), list[Columns](), 0
    for part in parts:
        at, offset, timestamp, key, value, headers = part.columns
        first, behind = int(at[0]), int(at[-1])
        texts.append(part.text[first:behind])
        by = end - first
        moved.append(Columns(at[:-1] + by, offset, timestamp, key + by, value + by, headers))
        end += behind - first
    columns = Columns._make(np.concatenate(column) for column in zip(*moved, strict=True))
    return Records(b"".join([*texts, bytes(SPARE)]), columns._replace(at=np.append(columns.at, end)))


def unpack(batches: Sequence[Packed]) -> Records:
    """The records of batches of one topic partition. Raises CorruptError."""
    ends = np.cumsum([0, *(len(batch.body) for batch in batches)])
    numbers = [(b.size, b.base_offset, b.first_ms, b.fixed_ms, b.wanted) for b in batches]
    about = _Batches(ends[:-1], ends[1:], *np.ascontiguousarray(np.array(numbers, np.int64).reshape(-1, 5).T))
    text = b"".join([*(batch.body for batch in batches), bytes(SPARE)])
    most = int(np.clip(about.size, 0, about.end - about.start).sum())  # whatever a batch says of itself
    shapes = (most + 1, most, most, (most, 2), (most, 2), most)
    columns = Columns._make(np.empty(shape, np.int64) for shape in shapes)
    n = _unpack(np.frombuffer(text, np.uint8), about, columns)
    if n < 0:
        raise CorruptError(f"record {-1 - n} of a batch is not as long as it says")
    return Records(text, columns).part(0, n)


@leaf
def _unpack(text, batches, columns):  # type: ignore[no-untyped-def]
    """Fill the columns; returns how many records there are, or -1 - number of the record that does not add up."""
    n = 0
    columns.at[0] = 0
    for b in range(len(batches.size)):
        at, end = batches.start[b], batches.end[b]
        for number in range(batches.size[b]):
            begin = at
            behind = _record(text, at, end, n, columns)
            if behind < 0:
                return -1 - number
            at = behind
            columns.offset[n] += batches.base_offset[b]
            columns.timestamp[n] += batches.first_ms[b]
            if batches.fixed_ms[b] >= 0:
                columns.timestamp[n] = batches.fixed_ms[b]
            if columns.offset[n] >= batches.wanted[b]:
                columns.at[n], columns.at[n + 1] = begin, behind
                n += 1
    return n


@leaf
def _record(text, begin, end, n, columns):  # type: ignore[no-untyped-def]
    """One record into place n, time and offset as differences; what is behind it, or -1."""
    length, at = _varint(text, begin, end)
    if length < 1 or length > end - at:
        return -1
    end = at + length
    columns.timestamp[n], at = _varint(text, at + 1, end)
    columns.offset[n], at = _varint(text, at, end)
    columns.key[n, 0], columns.key[n, 1], at = _sized(text, at, end)
    columns.value[n, 0], columns.value[n, 1], at = _sized(text, at, end)
    place = at
    count, at = _varint(text, at, end)
    if count < 0 or count > (end - at) // 2:  # a header takes two bytes at least
        return -1
    columns.headers[n] = place - begin if count else 0
    for _ in range(2 * count):
        _, _, at = _sized(text, at, end)
    return end if at == end else -1


@leaf
def _sized(text, at, end):  # type: ignore[no-untyped-def]
    """Where something with a length before it begins and ends, and what is behind it; beyond `end` where it is not."""
    length, at = _varint(text, at, end)
    if length > end - at:
        return at, at, end + 1
    behind = at + max(length, 0)
    return at, at + max(length, -1), behind


@leaf
def _varint(text, at, end):  # type: ignore[no-untyped-def]
    """A zigzag varint, and what is behind it; beyond `end` where it does not end before."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < 64:
        byte = np.uint64(text[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 0x80:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
    return np.int64(0), end + 1


def _headers(text: bytes, at: int) -> Headers:
    """The headers that begin at a place of an unpacked text."""
    data, end, found = np.frombuffer(text, np.uint8), len(text), list[tuple[str, bytes | None]]()
    count, at = _varint(data, at, end)
    for _ in range(count):
        first, behind, at = _sized(data, at, end)
        name = text[first:behind].decode(errors="backslashreplace")
        first, behind, at = _sized(data, at, end)
        found.append((name, None if behind < first else text[first:behind]))
    return tuple(found)
