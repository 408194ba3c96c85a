"""Records with header names that are not UTF-8 are read like any others.

Names are text to aiokafka and bytes to producers on librdkafka: one such record stops its partition for good, with a
UnicodeDecodeError at every attempt. aiokafka has no setting for it, so `accept_any_name` puts `LenientRecords` in the
place of the class with which its fetcher unpacks chunks. What aiokafka can unpack it still unpacks itself.

Record batch, format 2 (kafka.apache.org/documentation/#recordbatch): 61 bytes of which we need base offset, attributes,
timestamps and count, then the records, compressed together. Record: varints and what they measure.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

LENGTH: Final = struct.Struct(">i")  # at 8: bytes behind it
MAGIC_AT: Final = 16
BATCH: Final = struct.Struct(
    ">q13xhiqq14xi"
)  # base offset, attributes, last offset delta, first and newest time, count
LOG_APPEND_TIME: Final = 8  # of the attributes

_unpack: dict[int, Callable[[bytes], Any]] = {
    0: bytes,
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}


def accept_any_name() -> None:
    """From here on all consumers of this process read records whatever their headers are called."""
    fetcher.MemoryRecords = LenientRecords


class Record(NamedTuple):
    """A record as aiokafka's own."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class LenientRecords:
    """A fetched chunk: record batches one after another."""

    def __init__(self, chunk: bytes) -> None:
        self._chunk, self._at = memoryview(chunk), 0
        self._records = MemoryRecords(chunk)

    def size_in_bytes(self) -> int:
        """Of the chunk."""
        return len(self._chunk)

    def has_next(self) -> bool:
        """Whether there is a whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        """The next batch, as aiokafka's."""
        batch, raw = self._records.next_batch(), self._chunk[self._at :]
        (length,) = LENGTH.unpack_from(raw, 8)
        self._at += 12 + length
        if raw[MAGIC_AT] < 2 or batch.is_control_batch:
            return batch  # without headers
        return LenientBatch(batch, raw[: 12 + length])


class LenientBatch:
    """A batch that looks like aiokafka's."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch, self._raw = batch, raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        """Records in order; after a name that aiokafka cannot read all of them anew: it skips what it has had."""
        try:
            yield from self._batch
        except (UnicodeDecodeError, CorruptRecordException):
            yield from records(self._raw)


def records(batch: memoryview) -> Iterator[Record]:
    """The records of a batch; bytes of header names that are not UTF-8 read as `\\xff`.

    Raises CorruptRecordException where it does not add up.
    """
    base_offset, attributes, _, first_ms, newest_ms, count = BATCH.unpack_from(batch)
    body, at = memoryview(_unpack[attributes & 7](batch[BATCH.size :].tobytes())), 0
    timestamp_type = int(bool(attributes & LOG_APPEND_TIME))
    for _ in range(count):
        length, at = _varint(body, at)
        delta_ms, pos = _varint(body, at + 1)  # behind the record's own attributes, which are not in use
        offset_delta, pos = _varint(body, pos)
        key, pos = _bytes(body, pos)
        value, pos = _bytes(body, pos)
        headers, pos = _headers(body, pos)
        at += length
        if pos != at or at > len(body):
            raise CorruptRecordException(f"record {base_offset + offset_delta} is not as long as it says")
        timestamp = newest_ms if timestamp_type else first_ms + delta_ms
        yield Record(base_offset + offset_delta, timestamp, timestamp_type, key, value, headers)


def _headers(body: memoryview, at: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, at = _varint(body, at)
    headers = []
    for _ in range(count):
        name, at = _bytes(body, at)
        value, at = _bytes(body, at)
        headers.append(((name or b"").decode(errors="backslashreplace"), value))
    return headers, at


def _bytes(body: memoryview, at: int) -> tuple[bytes | None, int]:
    """Bytes behind their length; -1 is null."""
    length, at = _varint(body, at)
    return (None, at) if length < 0 else (body[at : at + length].tobytes(), at + length)


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    """A zigzag varint, and where the next thing begins."""
    value = shift = 0
    while True:
        if at >= len(body):
            raise CorruptRecordException("a record goes on behind the end of its batch")
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
