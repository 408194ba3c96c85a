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
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from mode import Service

from streamer import metrics, upstream
from streamer.engine.exit import leave
from streamer.engine.fetching import Fetching, Group, fetch_options, wait
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.record_batches import take_apart
from streamer.errors import RetentionError, SettingsError, StateError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

CHANNEL_BATCHES: Final = 2  # of a group, handed on and not begun: what waits longer does so in its partition's buffer
READ_S, MANY = 0.02, 1000  # between two rounds of reading that find fewer records than this
FEED_S: Final = 0.1  # how often we look whether a topic was waited for long enough


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
        self._groups = groups
        self._topics = [settings.topic(topic) for group in groups for topic in group.topics]
        self._flow = asyncio.Event()  # set: fetching is allowed
        self._io = asyncio.Lock()  # a seek never overlaps a fetch
        self._restoring: asyncio.Task[None] | None = None
        self._filled = [asyncio.Event() for _ in groups]
        self.fetching = Fetching(settings, groups)
        self.consumer: Any = None

    async def on_start(self) -> None:
        """Join the group."""
        take_apart()
        upstream.let_channels_flow(self.app)
        settings = self.settings
        self.consumer = AIOKafkaConsumer(
            **aiokafka_options(settings),
            **fetch_options(settings),
            group_id=settings.group_id,
            group_instance_id=settings.instance_id or None,
            auto_offset_reset="none",  # every position is sought: where there is none any more, nobody may skip on
            partition_assignment_strategy=[self.app.assignor],  # sticky, co-partitioned, knows each owner's URL
            max_poll_interval_ms=2**31 - 1,  # an idle worker must stay a member
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 10, 100),
            rebalance_timeout_ms=max(60_000, settings.session_timeout_ms),
        )
        self.fetching.consumer = self.consumer
        await self.consumer.start()
        self.consumer.subscribe(self._topics, listener=self)
        for group, filled in zip(self._groups, self._filled, strict=True):
            self.add_future(self._feed(group, filled))

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
            async with self._io:
                self.fetching.open(positions, await self._seek(positions))
            self._flow.set()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            leave("taking partitions over failed", exc)

    async def _seek(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Go on at these positions; returns where the topic partitions end.

        Raises RetentionError or StateError for a position where no record is or will be. Signals are hints for the
        items' models: those that are gone are done without.
        """
        topics = list(positions)
        if not topics:
            return {}
        first: dict[TopicPartition, int] = await self.consumer.beginning_offsets(topics)
        end: dict[TopicPartition, int] = await self.consumer.end_offsets(topics)
        hints = {tp for tp in topics if tp.topic == self.settings.signals_topic}
        check_positions({tp: at for tp, at in positions.items() if tp not in hints}, first, end)
        check_positions({tp: max(positions[tp], first[tp]) for tp in hints}, first, end)
        lost = sum(max(first[tp] - positions[tp], 0) for tp in hints)
        if lost:
            log.warning("retention deleted signals before they were read: going on without them", records=lost)
        for tp, offset in positions.items():
            self.consumer.seek(tp, max(offset, first[tp]))
        return end

    async def _release(self) -> None:
        self._flow.clear()
        task, self._restoring = self._restoring, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.handlers.release()
        self.fetching.close()

    # ---- fetching
    @Service.task
    async def _pump(self) -> None:
        try:
            while not self.should_stop:
                if self._flow.is_set():
                    await self._read()
                else:
                    self._require_member()
                    await wait(self._flow, 0.5)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            leave("fetching failed", exc)

    async def _read(self) -> None:
        began_s = time.monotonic()
        few = await self._fetch() < MANY
        await self.fetching.wait_for_room()
        if few:  # a round costs the same however few they are
            await asyncio.sleep(max(began_s + READ_S - time.monotonic(), 0))

    def _require_member(self) -> None:
        """Raise what ended our membership of the group; SettingsError where another worker has our place in it."""
        try:
            upstream.require_member(self.consumer)
        except KafkaError as exc:
            if not (self.settings.instance_id and isinstance(exc.__cause__, AssertionError)):
                raise
            raise SettingsError(
                f"STREAMER_INSTANCE_ID={self.settings.instance_id} is another worker's, which answers at another URL:"
                " give each its own. If it was ours until now, and only the URL changed: start again after the session"
                f" time-out of {self.settings.session_timeout_ms / 1000:.0f} s"
            ) from exc

    async def _fetch(self) -> int:
        """Returns how many records came."""
        epoch = self.handlers.epoch()
        async with self._io:
            try:
                found = 0 if self._is_void(epoch) else await self.fetching.read(lambda: self._is_void(epoch))
            except IllegalStateError:
                return 0  # a partition was revoked between two of our questions about it
            except OffsetOutOfRangeError as exc:
                if not self._is_void(epoch):
                    await self._seek(exc.args[0])
                return 0
            except NoOffsetForPartitionError:
                if not self._is_void(epoch):  # else it was assigned this moment, and is not sought yet
                    raise
                return 0
        if found:
            for filled in self._filled:
                filled.set()
        return found

    def _is_void(self, epoch: int) -> bool:
        """Whether a rebalance came between: what was fetched will be read again by its owner."""
        return epoch != self.handlers.epoch() or not self._flow.is_set()

    async def _feed(self, group: Group, filled: asyncio.Event) -> None:
        """Hand a group's batches on, one of each partition in turn. A full channel holds up no other group."""
        try:
            while not self.should_stop:
                filled.clear()
                if not await self._hand_on(group):
                    await wait(filled, min(self.fetching.next_rested_s(group), FEED_S))
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            leave("handing batches on failed", exc)

    async def _hand_on(self, group: Group) -> int:
        """Put one batch of each partition into the agent's channel; returns how many there were."""
        batches, epoch = 0, self.handlers.epoch()
        for source in self.fetching.sources(group):
            if self._is_void(epoch):
                return batches
            batch = self.fetching.batch(source, epoch)
            if batch is not None:
                await group.channel.put(batch)
                batches += 1
        return batches

    # ---- how far we are
    def end_offset(self, topic: str, partition: int) -> int | None:
        """Where a topic partition ends, as of the broker's last answer; None before the first."""
        return self.fetching.end_offset(topic, partition)

    def lag_seconds(self) -> float:
        """Age of the oldest record that is fetched and not handed on; 0 when there is none."""
        return self.fetching.lag_seconds()

    def lag_seconds_of(self, topic: str, partition: int) -> float:
        """As `lag_seconds`, of one topic partition."""
        return self.fetching.lag_seconds_of(topic, partition)

    def owner_url(self, partition: int) -> str | None:
        """The URL of the worker that owns a partition, as of the last assignment."""
        topic = self._topics[0]
        for url, topics in upstream.owners(self.app).items():
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
