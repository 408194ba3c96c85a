"""Restore: bring a partition's store up to its changelog, in bulk.

By position against end offset, read_committed: markers and holes count, and a compacted changelog has an end like any
other.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamer import metrics
from streamer.engine.held import Passing
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.partition import Partition
from streamer.engine.store import Store
from streamer.engine.topic_ids import Origin
from streamer.engine.topics import DAY_MS, OUTAGE_MS
from streamer.errors import StateError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

POLL_MS = 20  # getmany does not wake for a fetch that holds only a commit marker
BULK_RECORDS = 20_000


class Restore:
    """Restores some partitions together. `origin` is the changelog that is there now.

    `rows` counts the changelog's records that were read for it.
    """

    def __init__(
        self, settings: Settings, origin: Origin, partitions: list[Partition], progress: Callable[[int, int], None]
    ) -> None:
        self._settings, self._origin, self._progress = settings, origin, progress
        self._todo = {TopicPartition(settings.changelog_topic, p.number): p for p in partitions}
        self._passing = {p.number: Passing() for p in partitions}
        self.rows = 0

    async def run(self) -> None:
        """Read to the end. A store that is no prefix of the changelog is moved aside first.

        Raises StateError, with every store left as it is, where the changelog does not have all that is missing.
        """
        if not self._todo:
            return
        consumer = AIOKafkaConsumer(
            **aiokafka_options(self._settings),
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=POLL_MS,  # partitions that are not done wait for what is asked beyond others' ends
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=64 << 20,
        )
        await consumer.start()
        try:
            await self._read(consumer)
        finally:
            await consumer.stop()
            metrics.RESTORE_REMAINING.set(0)

    async def _read(self, consumer: Any) -> None:
        topics = list(self._todo)
        consumer.assign(topics)
        first, end = await consumer.beginning_offsets(topics), await consumer.end_offsets(topics)
        unusable = {tp: self._unusable(tp, first[tp], end[tp]) for tp in topics}  # all before any is moved
        for tp in topics:
            self._seek(consumer, tp, first[tp], end[tp], unusable[tp])
        total = sum(end[tp] - _store(p).next_offset for tp, p in self._todo.items())
        while self._todo:
            for tp, records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=BULK_RECORDS)).items():
                if tp in self._todo:
                    self._apply(self._todo[tp], records)
            left = 0
            for tp, partition in list(self._todo.items()):
                at = await consumer.position(tp)  # also moves over commit markers
                left += max(end[tp] - at, 0)
                if at >= end[tp]:
                    _store(partition).write([], at, self._passing[partition.number].settle(at))
                    self._finish(consumer, tp)
            metrics.RESTORE_REMAINING.set(left)
            self._progress(total - left, total)

    def _seek(self, consumer: Any, tp: TopicPartition, first: int, end: int, unusable: str | None) -> None:
        store = _store(self._todo[tp])
        if unusable is not None:
            log.warning(
                "local state is not used, it was moved: restoring from the whole changelog",
                partition=tp.partition,
                why=unusable,
                moved_to=str(store.set_aside()),
            )
        store.note_origin(msgspec.msgpack.encode(self._origin))
        start = max(store.next_offset, first)
        consumer.seek(tp, start)
        if start >= end:
            self._finish(consumer, tp)

    def _unusable(self, tp: TopicPartition, first: int, end: int) -> str | None:
        """Why a store cannot be brought up from a changelog that reaches from `first` to `end`; None where it can.

        Raises StateError where rows are deleted from the changelog that the store does not have.
        """
        store = _store(self._todo[tp])
        why = self._why_unusable(store, first, end)
        if first > 0 and (why is not None or not store.next_offset):
            raise StateError(
                f"{tp.topic}/{tp.partition} has no records before offset {first}, and {store.path} cannot do without"
                f" them ({why or 'it is empty'}): were they deleted? Bring back a disk that reached offset {first},"
                " or start anew under another STREAMER_APP_ID; what is on disk is left as it is"
            )
        if why is not None and first >= end and self._is_its_own(store):
            raise StateError(
                f"{tp.topic}/{tp.partition} has no records, but {store.path} was saved up to its offset"
                f" {store.next_offset}: was it deleted? Bring it back; or"
                " `streamer reset --to earliest --drop-state` rebuilds everything from the events that are there;"
                " the state on disk is left as it is"
            )
        return why

    def _why_unusable(self, store: Store, first: int, end: int) -> str | None:
        origin = self._origin_of(store)
        if not store.next_offset:
            return None
        if not self._is_its_own(store):
            return f"it belongs to {origin.topic} of cluster {origin.cluster}"
        return "the changelog was made anew" if self._origin.is_made_anew(origin) else _out_of_range(store, first, end)

    def _is_its_own(self, store: Store) -> bool:
        """Whether the changelog has the name and the cluster of the one that the store is a prefix of."""
        origin, now = self._origin_of(store), self._origin
        return (origin.cluster, origin.topic) == (now.cluster, now.topic)

    def _origin_of(self, store: Store) -> Origin:
        noted = store.origin
        return self._origin if noted is None else msgspec.msgpack.decode(noted, type=Origin)

    def _apply(self, partition: Partition, records: list[Any]) -> None:
        latest = {record.key: record.value for record in records}
        next_offset = records[-1].offset + 1
        _store(partition).write(latest.items(), next_offset, self._passing[partition.number].see(latest, next_offset))
        self.rows += len(records)
        metrics.RESTORE_ROWS.inc(len(records))

    def _finish(self, consumer: Any, tp: TopicPartition) -> None:
        consumer.pause(tp)
        del self._todo[tp]


def _out_of_range(store: Store, first: int, end: int) -> str | None:
    if not first <= store.next_offset <= end:
        return f"it stands at {store.next_offset}, the changelog reaches from {first} to {end}"
    if store.written_at < time.time_ns() // 1_000_000 - OUTAGE_MS:
        return f"it is older than {OUTAGE_MS // DAY_MS} days: deletions since may be compacted away"
    return None


def _store(partition: Partition) -> Store:
    if partition.store is None:
        raise RuntimeError(f"partition {partition.number} is not open")
    return partition.store
