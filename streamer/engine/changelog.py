"""Reading a changelog without a store: where a partition stands, and what is left of its rows when state is dropped."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition

from streamer.engine.position import LAYOUT, Position
from streamer.engine.store import POSITION, USER, Row
from streamer.errors import StateError
from streamer.pipeline.rows import blank
from streamer.settings import Settings

POLL_MS: Final = 20  # as in restore: getmany does not wake for a fetch that holds only a commit marker
WINDOW: Final = (
    256  # records before the end in which a position row is looked for first: each transaction ends with one
)


async def last_position(consumer: Any, tp: TopicPartition, settings: Settings) -> Position:
    """Where a partition stands; a blank position where its changelog has none. Raises StateError as a worker would."""
    bounds = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
    first, end = bounds[0][tp], bounds[1][tp]
    start, raw = end, None
    while raw is None and start > first:
        start = max(first, end - max(WINDOW, 8 * (end - start)))
        async for rows in read(consumer, tp, start, end):
            raw = rows.get(POSITION, raw)
    if raw is None:
        return Position(LAYOUT, settings.partitions, {}, {})
    position = msgspec.msgpack.decode(raw, type=Position)
    if position.layout > LAYOUT or position.partitions != settings.partitions:
        raise StateError(
            f"the state of {tp.topic}/{tp.partition} has layout {position.layout} and {position.partitions} partitions,"
            f" this version knows layout {LAYOUT} and STREAMER_PARTITIONS is {settings.partitions}"
        )
    return position


async def read(consumer: Any, tp: TopicPartition, start: int, end: int) -> AsyncIterator[dict[bytes, bytes | None]]:
    """The rows from `start` to `end` in pieces, of each key in a piece the latest."""
    async for records in pieces(consumer, tp, start, end):
        yield {record.key: record.value for record in records}


async def pieces(consumer: Any, tp: TopicPartition, start: int, end: int) -> AsyncIterator[list[Any]]:
    """The records of any topic partition from `start` to `end`, as they come."""
    if start >= end:  # a consumer that is closed right after an assignment waits for its own fetcher for ever
        return
    consumer.assign([tp])
    consumer.seek(tp, start)
    while await consumer.position(tp) < end:
        for records in (await consumer.getmany(tp, timeout_ms=POLL_MS)).values():
            yield records


async def without_state(consumer: Any, tp: TopicPartition) -> list[Row]:
    """Rows that drop the state of a partition: users keep their version in a row that is blank otherwise.

    The position row is left to the caller. Takes some 300 bytes of memory a user of the partition.
    """
    bounds = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
    left: dict[bytes, bytes | None] = {}
    async for rows in read(consumer, tp, bounds[0][tp], bounds[1][tp]):
        left.update(dict.fromkeys(rows))
        left.update((key, blank(row)) for key, row in rows.items() if key.startswith(USER) and row is not None)
    left.pop(POSITION, None)
    return list(left.items())


async def keys(consumer: Any, tp: TopicPartition) -> set[bytes]:
    """All keys of a partition of a compacted topic."""
    bounds = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
    found: set[bytes] = set()
    async for rows in read(consumer, tp, bounds[0][tp], bounds[1][tp]):
        found |= rows.keys()
    return found
