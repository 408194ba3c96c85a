"""Ingest: our own consumer on Faust's loop, with Faust's assignor, feeds the channels that the agents read.

One message of a channel is a `Batch`: what one partition's topics gave, which position each take follows, and the
epoch in which it was fetched. A rebalance starts a new epoch: what was fetched before is void.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import faust
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError
from mode import Service

from streamer import metrics
from streamer.engine.exit import leave
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.merge import IDLE_MS, Buffer, merge
from streamer.engine.partition import Take
from streamer.errors import RetentionError, StateError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

FETCH_BYTES: Final = 1 << 20  # a partition: twelve partitions of three topics hold 36 MB at most
BUFFERED_BATCHES: Final = 4  # a topic is not fetched further while it has so many batches waiting
POLL_MS: Final = 100
CHANNEL_BATCHES: Final = 8  # handed on and not applied yet: bounds memory, and what a rebalance throws away


class Batch(NamedTuple):
    """What one message of a channel is."""

    partition: int
    takes: list[Take]
    epoch: int


class Group(NamedTuple):
    """Topics whose records an agent gets together, in the order of their timestamps."""

    topics: tuple[str, ...]  # as in the contracts
    channel: Any


class Source:
    """What one partition gives to one group."""

    def __init__(self, group: Group, buffers: dict[str, Buffer]) -> None:
        self.group, self.buffers = group, buffers
        self.waiting_since: float | None = None


class Handlers(NamedTuple):
    """What ingest calls: `acquire` opens partitions and says where to read from, `release` gives them up."""

    acquire: Callable[[set[TopicPartition], dict[TopicPartition, int], Any], Awaitable[dict[TopicPartition, int]]]
    release: Callable[[], Awaitable[None]]
    epoch: Callable[[], int]


class Ingest(Service, ConsumerRebalanceListener):
    """Group membership and fetching."""

    logger = logging.getLogger("mode")  # a service's comings and goings: filtered with the library's own

    def __init__(
        self, app: faust.App, settings: Settings, groups: list[Group], handlers: Handlers, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.app, self.settings, self.handlers = app, settings, handlers
        self._group_of = {settings.topic(topic): group for group in groups for topic in group.topics}
        self._plain = {settings.topic(topic): topic for group in groups for topic in group.topics}
        self._flow = asyncio.Event()  # set: fetching is allowed
        self._io = asyncio.Lock()  # a seek never overlaps a fetch
        self._restoring: asyncio.Task[None] | None = None
        self._sources: dict[tuple[int, int], Source] = {}
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._fetched: dict[TopicPartition, int] = {}  # offset of the next record to fetch
        self.consumer: Any = None

    async def on_start(self) -> None:
        """Join the group."""
        self.app.flow_control.resume()  # Faust would open its channels only with a consumer of its own
        settings = self.settings
        self.consumer = AIOKafkaConsumer(
            **aiokafka_options(settings),
            group_id=settings.group_id,
            group_instance_id=settings.instance_id or None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # every position is sought: where there is none any more, nobody may skip on
            isolation_level="read_committed",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_bytes=32 * FETCH_BYTES,
            partition_assignment_strategy=[self.app.assignor],  # sticky, co-partitioned, knows each owner's URL
            max_poll_interval_ms=2**31 - 1,  # an idle worker must stay a member
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 10, 100),
            rebalance_timeout_ms=max(60_000, settings.session_timeout_ms),
        )
        await self.consumer.start()
        self.consumer.subscribe(list(self._group_of), listener=self)

    # ---- rebalance
    # aiokafka awaits these and only logs what they raise; while on_partitions_assigned runs it sends no heartbeat.
    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Stop the flow, then give up what we have."""
        try:
            await self._release()
        except Exception as exc:
            leave("giving partitions up failed", exc)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start to open what is ours now, in the background: a revoke cancels it."""
        metrics.REBALANCES.inc()
        if not self.should_stop:  # a rebalance that meets our stop must not open anything again
            self._restoring = asyncio.create_task(self._acquire(set(assigned)))

    async def _acquire(self, assigned: set[TopicPartition]) -> None:
        try:
            first = await self.consumer.beginning_offsets(list(assigned)) if assigned else {}
            positions = await self.handlers.acquire(assigned, first, self.consumer.committed)
            self._open_sources(positions)
            async with self._io:
                await self._seek(positions)
            self._flow.set()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            leave("taking partitions over failed", exc)

    async def _seek(self, positions: dict[TopicPartition, int]) -> None:
        """Go on at these positions. Raises RetentionError or StateError for one where no record is or will be.

        Signals are hints for the items' models: those that are gone are done without.
        """
        topics = list(positions)
        if not topics:
            return
        first, end = await self.consumer.beginning_offsets(topics), await self.consumer.end_offsets(topics)
        hints = {tp for tp in topics if tp.topic == self.settings.signals_topic}
        check_positions({tp: at for tp, at in positions.items() if tp not in hints}, first, end)
        check_positions({tp: max(positions[tp], first[tp]) for tp in hints}, first, end)
        lost = sum(max(first[tp] - positions[tp], 0) for tp in hints)
        if lost:
            log.warning("retention deleted signals before they were read: going on without them", records=lost)
        for tp, offset in positions.items():
            self.consumer.seek(tp, max(offset, first[tp]))

    def _open_sources(self, positions: dict[TopicPartition, int]) -> None:
        self._sources, self._buffers = {}, {}
        for tp, offset in positions.items():
            group = self._group_of[tp.topic]
            source = self._sources.setdefault((id(group), tp.partition), Source(group, {}))
            self._buffers[tp] = source.buffers[self._plain[tp.topic]] = Buffer(offset)

    async def _release(self) -> None:
        self._flow.clear()
        task, self._restoring = self._restoring, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.handlers.release()

    # ---- fetching
    @Service.task
    async def _pump(self) -> None:
        try:
            while not self.should_stop:
                if self._flow.is_set():
                    await self._fetch()
                else:
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._flow.wait(), 0.5)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            leave("fetching failed", exc)

    async def _fetch(self) -> None:
        epoch = self.handlers.epoch()
        try:
            more = await self._fill(epoch)
        except IllegalStateError:
            return  # a partition was revoked between two of our questions about it
        for source_key, source in list(self._sources.items()):
            await self._hand_on(source_key[1], source, more, epoch)

    async def _fill(self, epoch: int) -> set[TopicPartition]:
        """Fetch into the buffers; returns the topic partitions that have more than that."""
        async with self._io:
            self._throttle()
            busy = any(buffer.records for buffer in self._buffers.values())
            got = await self._get(10 if busy else POLL_MS, epoch)
            if self._is_void(epoch):
                return set()  # a rebalance came between: these will be read again by their owner
            for tp, records in got.items():
                self._buffers[tp].records.extend(records)
            return {tp for tp in self._buffers if await self._has_more(tp)}

    async def _get(self, timeout_ms: int, epoch: int) -> dict[TopicPartition, list[Any]]:
        got: dict[TopicPartition, list[Any]] = {}
        try:
            got = await self.consumer.getmany(timeout_ms=timeout_ms, max_records=4 * self.settings.batch_records)
        except OffsetOutOfRangeError as exc:
            if not self._is_void(epoch):
                await self._seek(exc.args[0])
        except NoOffsetForPartitionError:
            if not self._is_void(epoch):  # else it was assigned this moment, and is not sought yet
                raise
        return got

    def _is_void(self, epoch: int) -> bool:
        return epoch != self.handlers.epoch() or not self._flow.is_set()

    async def _has_more(self, tp: TopicPartition) -> bool:
        """Whether the broker has records of a topic partition that we did not fetch yet, as of its last answer."""
        end = self.consumer.last_stable_offset(tp)
        self._fetched[tp] = await self.consumer.position(tp)
        return end is not None and self._fetched[tp] < end

    def _throttle(self) -> None:
        """Fetch no further where enough is buffered."""
        full = {
            tp for tp, b in self._buffers.items() if len(b.records) >= BUFFERED_BATCHES * self.settings.batch_records
        }
        paused = set(self.consumer.paused())
        self.consumer.pause(*(full - paused))
        self.consumer.resume(*(paused - full))

    async def _hand_on(self, partition: int, source: Source, more: set[TopicPartition], epoch: int) -> None:
        """Put batches into the agent's channel; waits while the channel is full."""
        topics = [t for t in source.buffers if TopicPartition(self.settings.topic(t), partition) in more]
        while any(buffer.records for buffer in source.buffers.values()):
            waited = source.waiting_since is not None and (time.monotonic() - source.waiting_since) * 1000 > IDLE_MS
            takes = merge(source.buffers, topics, self.settings.batch_records, waited=waited)
            if not takes:
                source.waiting_since = source.waiting_since or time.monotonic()
                return
            source.waiting_since = None
            if epoch != self.handlers.epoch():
                return
            batch = Batch(partition, [Take(topic, records, after) for topic, (after, records) in takes.items()], epoch)
            metrics.BATCH_RECORDS.observe(sum(len(take.records) for take in batch.takes))
            await source.group.channel.put(batch)

    # ---- how far we are
    def end_offset(self, topic: str, partition: int) -> int | None:
        """Where a topic partition ends, as of the broker's last answer; None before the first."""
        tp = TopicPartition(self.settings.topic(topic), partition)
        if tp not in self._buffers:
            return None
        try:
            end: int | None = self.consumer.last_stable_offset(tp)
        except IllegalStateError:
            return None
        buffer = self._buffers[tp]
        if end is not None and not buffer.records and self._fetched.get(tp, 0) >= end:
            return buffer.after  # what is behind it are markers of transactions
        return end

    def lag_seconds(self) -> float:
        """Age of the oldest record that is fetched and not handed on; 0 when there is none."""
        waiting = [buffer.records[0].timestamp for buffer in self._buffers.values() if buffer.records]
        return max(time.time() - min(waiting) / 1000, 0.0) if waiting else 0.0

    def owner_url(self, partition: int) -> str | None:
        """The URL of the worker that owns a partition, as of the last assignment."""
        topic = next(iter(self._group_of))
        for url, topics in self.app.assignor.external_topic_distribution.items():
            if partition in topics.get(topic, ()):
                return str(url)
        return None

    async def on_stop(self) -> None:
        """A last checkpoint while we are still a member, then leave the group."""
        await self._release()
        with suppress(asyncio.TimeoutError):  # leaving is courtesy: never let it hold the exit up
            await asyncio.wait_for(self.consumer.stop(), 5)


def check_positions(
    positions: dict[TopicPartition, int], first: dict[TopicPartition, int], end: dict[TopicPartition, int]
) -> None:
    """Raise RetentionError for positions before the first record, StateError for those beyond the end."""
    beyond = [
        f"{tp.topic}/{tp.partition} ends at {end[tp]}, we stand at {at}"
        for tp, at in sorted(positions.items())
        if at > end[tp]
    ]
    if beyond:
        raise StateError(
            f"{'; '.join(beyond)}: was the topic made anew or cut off? Bring its records back, or go on with what is"
            " there: `streamer reset`"
        )
    gone = {tp: first[tp] - at for tp, at in positions.items() if at < first[tp]}
    if gone:
        listed = ", ".join(f"{tp.topic}/{tp.partition}: {n}" for tp, n in sorted(gone.items()))
        raise RetentionError(
            f"retention deleted records before they were read ({listed}): raise the topic's retention.ms."
            " `streamer reset --to earliest` goes on without them"
        )
