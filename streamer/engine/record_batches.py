"""How the worker's consumers take fetched chunks apart: aiokafka finds the batches, we unpack what it cannot or slowly.

Header names are text to aiokafka and bytes to producers on librdkafka: one record with a name that is not UTF-8 stops
its partition for good, with a UnicodeDecodeError at every attempt. aiokafka has no setting for it, so such a batch is
unpacked by us. And who wants whole batches (`whole_batches`) gets them decompressed, to unpack a fetch at once
(`pipeline.records`): aiokafka makes an object of each record, which was a tenth of the worker's time.

Record batch, format 2 (kafka.apache.org/documentation/#recordbatch): 61 bytes of which we need base offset, checksum,
attributes, timestamps and count, then the records, compressed together.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from crc32c import crc32c

from streamer.pipeline.records import CorruptError, Headers, Packed, Records, join, unpack
from streamer.upstream.batches import fetch_with

LENGTH: Final = struct.Struct(">i")  # at 8: bytes behind it
MAGIC_AT: Final = 16
CHECKSUM: Final = struct.Struct(">I")  # at 17: of what is behind it
# Base offset, attributes, last offset delta, first and newest time, count.
BATCH: Final = struct.Struct(">q13xhiqq14xi")
LOG_APPEND_TIME: Final = 8  # of the attributes

_decompress: dict[int, Callable[[bytes], Any]] = {
    0: bytes,
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}


def take_apart() -> None:
    """From here on all consumers of this process read records whatever their headers are called."""
    fetch_with(Chunk)


class Record(NamedTuple):
    """A record as aiokafka's own."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    checksum: None = None


class Chunk:
    """A fetched chunk: record batches one after another."""

    def __init__(self, chunk: bytes) -> None:
        self._chunk, self._at = memoryview(chunk), 0
        self._records = MemoryRecords(chunk)
        self.whole = False

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
        return Batch(batch, raw[: 12 + length], whole=self.whole)


class Batch:
    """A batch that looks like aiokafka's; a `whole` one gives all its records as one."""

    def __init__(self, batch: Any, raw: memoryview, *, whole: bool) -> None:
        self._batch, self._raw, self._whole = batch, raw, whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """Whether the checksum is right: by the processor's own instruction, a tenth of the time of aiokafka's."""
        (checksum,) = CHECKSUM.unpack_from(self._raw, 17)
        return bool(crc32c(self._raw[21:]) == checksum)

    def __iter__(self) -> Iterator[Any]:
        """Records in order; after a name that aiokafka cannot read all of them anew: it skips what it has had."""
        if self._whole:
            yield packed(self._raw)
            return
        try:
            yield from self._batch
        except (UnicodeDecodeError, CorruptRecordException):
            yield from records(self._raw)


def packed(batch: memoryview) -> Packed:
    """The records of a batch, decompressed."""
    base_offset, attributes, last_delta, first_ms, newest_ms, count = BATCH.unpack_from(batch)
    body = bytes(_decompress[attributes & 7](batch[BATCH.size :].tobytes()))
    fixed_ms = newest_ms if attributes & LOG_APPEND_TIME else -1
    return Packed(body, count, base_offset, base_offset + last_delta, first_ms, fixed_ms)


def unpacked(batches: Sequence[Any]) -> Records:
    """Records of what a consumer of whole batches gave. Raises CorruptRecordException.

    Topics that were written before Kafka 0.11 have records beside batches.
    """
    if not all(isinstance(batch, Packed) for batch in batches):
        return join([unpacked([each]) if isinstance(each, Packed) else Records.of([each]) for each in batches])
    try:
        return unpack(batches)
    except CorruptError as exc:
        raise CorruptRecordException(str(exc)) from exc


def records(batch: memoryview) -> Iterator[Record]:
    """The records of a batch. Raises CorruptRecordException where it does not add up."""
    whole = packed(batch)
    for each in unpacked([whole]):
        yield Record(each.offset, each.timestamp, int(whole.fixed_ms >= 0), each.key, each.value, each.headers)
