"""A snapshot of the compacted profile topic: the latest record of every user, once.

A partition at a time (a user lives in one): its records go one after the other into a spool, in memory up to a limit
and then in a file without a name; of each key only the place of its last record is kept, some 200 bytes. When the
partition is read to its end as of the start, what the places point to is handed over.
"""

import struct
import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer, TopicPartition

from streamer.client.updates import Record
from streamer.errors import StreamerError

POLL_RECORDS = 5_000  # a poll costs some 0.5 ms besides its records
_HEAD = struct.Struct("<qqi")  # offset, timestamp, length of the value; -1 for null


class Progress(NamedTuple):
    """How far a snapshot is: offsets read of all there were at the start. Compaction has emptied some of them."""

    read: int
    total: int


class Latest:
    """The latest record of every key of one partition, in the order in which they were written.

    `memory_bytes` of values stay in memory; more go to a temporary file. Raises StreamerError when its disk is full.
    """

    def __init__(self, partition: int, memory_bytes: int) -> None:
        self._partition = partition
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115 - closed by __exit__
        self._places: dict[bytes | None, int] = {}
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, record: Any) -> None:
        """Take a record, or kafka-python's, in place of what the key had before."""
        value = b"" if record.value is None else record.value
        head = _HEAD.pack(record.offset, record.timestamp, -1 if record.value is None else len(value))
        try:
            self._file.write(head + value)
        except OSError as exc:
            raise StreamerError(
                f"no room for a snapshot in {tempfile.gettempdir()} ({exc.strerror}): set TMPDIR to a directory with"
                " room for one partition of the profile topic, or raise snapshot_memory_mb"
            ) from exc
        self._places.pop(record.key, None)  # so that the places stay in the order of the file
        self._places[record.key] = self._end
        self._end += len(head) + len(value)

    def __iter__(self) -> Iterator[Record]:
        for key, place in self._places.items():
            self._file.seek(place)
            offset, timestamp, size = _HEAD.unpack(self._file.read(_HEAD.size))
            value = None if size < 0 else self._file.read(size)
            yield Record(key, value, self._partition, offset, timestamp)


def read_snapshot(
    consumer: KafkaConsumer, *, poll_ms: int, memory_bytes: int, on_progress: Callable[[Progress], None]
) -> Iterator[Record | None]:
    """The latest record of every key in the assigned partitions; None after each poll, so that the reader may stop.

    What arrives while a partition is read may be in it. Afterwards the consumer goes on behind what was read.
    """
    partitions = sorted(consumer.assignment())
    starts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    consumer.seek_to_beginning()
    consumer.pause(*partitions)
    total, before = sum(ends.values()) - sum(starts.values()), 0
    for partition in partitions:
        consumer.resume(partition)
        with Latest(partition.partition, memory_bytes) as latest:
            for position in _read_to(consumer, partition, ends[partition], poll_ms, latest):
                read = min(position, ends[partition]) - starts[partition]
                on_progress(Progress(before + read, total))
                yield None
            consumer.pause(partition)
            yield from latest
        before += ends[partition] - starts[partition]
    consumer.resume(*partitions)


def _read_to(consumer: Any, partition: TopicPartition, end: int, poll_ms: int, latest: Latest) -> Iterator[int]:
    """Read on until the position is at `end`; the position after each poll."""
    position: int = consumer.position(partition)
    while position < end:
        for records in consumer.poll(timeout_ms=poll_ms, max_records=POLL_RECORDS).values():
            for record in records:
                latest.put(record)
        position = consumer.position(partition)
        yield position
