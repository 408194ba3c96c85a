"""aiokafka with chunks that others take apart, and whole record batches in place of records."""

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from streamer.pipeline.records import Packed


def whole_batches(value: bytes | None) -> bytes | None:
    """As a consumer's `value_deserializer`: it hands record batches on as they are, each for a record."""
    return value


def fetch_with(chunk: type[MemoryRecords]) -> None:
    """From here on all consumers of this process take fetched chunks apart with this class, in place of aiokafka's.

    A chunk of a consumer that wants `whole_batches` is told so by its attribute `whole`, and its batches are to give
    nothing but one `Packed`.
    """
    fetcher.MemoryRecords, fetcher.PartitionRecords = chunk, _PartitionRecords


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """What one topic partition gave to a fetch: aiokafka's, with whole batches where they are wanted."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self._value_deserializer is whole_batches:
            self._records.whole = True

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        if isinstance(record, Packed):
            return record._replace(wanted=self.next_fetch_offset)
        return super()._consumer_record(tp, record)
