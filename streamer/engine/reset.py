"""Reset: other source positions for an app whose workers are stopped, and on request its state dropped.

The positions that count are a row of each partition's changelog, written with the rows of users: moving the group's
offsets alone changes nothing. So a reset writes as a worker does, partition by partition:

    1. the group has no members
    2. InitProducerId with the partition's transactional id: a worker that sleeps somewhere can't commit any more
    3. one transaction: the position row, the group's offsets, and where the state is dropped a row for every key and
       a null for every item's model

Cut short between two partitions, some have the new positions and some the old ones: run it again.

Dropped state leaves the version of each user behind, in a row that is blank otherwise: profiles go on counting up, and
subscribers, who drop versions that they have seen, take the rebuilt ones. Everything else is deleted. Signals that are
on their way to items are passed over then: the events that are read again send them again.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamer.engine.changelog import POLL_MS, keys, last_position, without_state
from streamer.engine.kafka_clients import admin_client, aiokafka_options
from streamer.engine.position import SIGNALS, Position
from streamer.engine.store import POSITION, Row
from streamer.engine.topic_ids import EVENTS, SOURCES, topic_ids
from streamer.engine.topics import require_topics
from streamer.engine.transactions import Outgoing, partition_producer, send
from streamer.errors import SettingsError, StreamerError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

TRANSACTION_MS: Final = 600_000  # a million users take half a minute; brokers grant 15 minutes


class Target(msgspec.Struct, frozen=True):
    """Where to: the first record that is there, or with `since_ms` the first that Kafka got from then on."""

    since_ms: int | None = None
    topics: tuple[str, ...] = ()  # as in the contracts; empty: all of events, and all there are when state is dropped
    drop_state: bool = False


class Move(msgspec.Struct, frozen=True):
    """One topic partition's way. `at` is None where nothing was read yet; counts are of offsets: at most of records."""

    topic: str
    partition: int
    at: int | None = msgspec.field(name="from")
    to: int
    read_again: int
    skipped: int


class Reset(msgspec.Struct, frozen=True):
    """What a reset does, or did."""

    app: str
    drops_state: bool
    moves: tuple[Move, ...]

    @property
    def changes_anything(self) -> bool:
        """Whether positions move or state is dropped."""
        return self.drops_state or any(move.at != move.to for move in self.moves)


def plan(settings: Settings, target: Target) -> Reset:
    """What a reset would do. Changes nothing.

    Raises SettingsError for topics without positions, StreamerError while the group has members, StateError for state
    that this version cannot read, TopicsError or BrokerError when topics or the broker are not there.
    """
    return asyncio.run(_reset(settings, target, write=False))


def carry_out(settings: Settings, target: Target) -> Reset:
    """Do it, and return what was done. Raises as `plan` does, and what Kafka raises: then run it again."""
    return asyncio.run(_reset(settings, target, write=True))


def require_stopped(settings: Settings) -> None:
    """Raise StreamerError while the group has members."""
    with admin_client(settings) as admin:
        group = admin.describe_groups([settings.group_id])[settings.group_id]
    if group["group_state"] in {"Empty", "Dead"}:
        return
    if not group["members"]:
        raise StreamerError(f"the group {settings.group_id} is {group['group_state']} ({group['error']}): try again")
    names = sorted(f"{member['client_id']} at {member['client_host'].lstrip('/')}" for member in group["members"])
    raise StreamerError(
        f"workers of {settings.group_id} are running: {', '.join(names)}. Stop them first; one that was killed is a"
        f" member for another {settings.session_timeout_ms / 1000:.0f} s"
    )


async def _reset(settings: Settings, target: Target, *, write: bool) -> Reset:
    _check(target)
    require_topics(settings)
    require_stopped(settings)
    async with AsyncExitStack() as stack:
        producers = {}
        for n in range(settings.partitions) if write else ():
            producers[n] = partition_producer(settings, n, TRANSACTION_MS)
            stack.push_async_callback(producers[n].stop)
            await producers[n].start()
        require_stopped(settings)  # one that started meanwhile is fenced: let its operator decide
        consumer = await stack.enter_async_context(_consumer(settings))
        places = await _Places.find(settings, target, consumer)
        for n, producer in producers.items():
            await places.write(n, producer)
        return places.reset()


def _check(target: Target) -> None:
    unknown = sorted(set(target.topics) - set(SOURCES))
    if unknown:
        raise SettingsError(f"--topic {', '.join(unknown)}: positions are kept in {', '.join(SOURCES)}")
    if target.drop_state and target.topics:
        raise SettingsError("--drop-state rebuilds everything from all topics: leave --topic out")


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **aiokafka_options(settings),
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",
        fetch_max_wait_ms=POLL_MS,  # the next partition waits for what is asked of this one beyond its end
        max_partition_fetch_bytes=4 << 20,
    )


class _Places:
    """All partitions: where they stand, and where they are to stand."""

    def __init__(self, settings: Settings, target: Target, consumer: Any) -> None:
        self._settings, self._target, self._consumer = settings, target, consumer
        self._positions: dict[int, Position] = {}
        self._at: dict[TopicPartition, int] = {}
        self._to: dict[TopicPartition, int] = {}
        self._ids: dict[str, str] = {}

    @classmethod
    async def find(cls, settings: Settings, target: Target, consumer: Any) -> "_Places":
        """Look them all up."""
        places = cls(settings, target, consumer)
        names = target.topics or (SOURCES if target.drop_state else EVENTS)
        topics = [settings.topic(name) for name in names]
        places._ids = topic_ids(settings, topics)
        await places._look(topics)
        await places._aim([TopicPartition(topic, n) for topic in topics for n in range(settings.partitions)])
        return places

    async def _look(self, topics: list[str]) -> None:
        """Where they stand: the changelog's word, and the group's where it has none."""
        settings = self._settings
        with admin_client(settings) as admin:
            group = admin.list_group_offsets([settings.group_id])[settings.group_id]
        self._at = {TopicPartition(tp.topic, tp.partition): entry.offset for tp, entry in group.items()}
        for n in range(settings.partitions):
            position = await last_position(self._consumer, TopicPartition(settings.changelog_topic, n), settings)
            self._positions[n] = position
            self._at |= {TopicPartition(settings.topic(topic), n): at for topic, at in position.next.items()}

    async def _aim(self, places: list[TopicPartition]) -> None:
        """Where they are to stand."""
        settings, since_ms = self._settings, self._target.since_ms
        first, end = await self._consumer.beginning_offsets(places), await self._consumer.end_offsets(places)
        self._to = dict(first)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(places, since_ms))
            self._to = {tp: end[tp] if found[tp] is None else found[tp].offset for tp in places}
        if self._target.drop_state:  # what items are is read whole; what they learn comes from the events once more
            self._to |= {tp: first[tp] for tp in places if tp.topic == settings.topic("items")}
            self._to |= {tp: end[tp] for tp in places if tp.topic == settings.signals_topic}

    def reset(self) -> Reset:
        """All of it, in words."""
        moves = tuple(self._move(tp, self._at.get(tp), to) for tp, to in sorted(self._to.items()))
        return Reset(self._settings.group_id, self._target.drop_state, moves)

    def _move(self, tp: TopicPartition, at: int | None, to: int) -> Move:
        back = 0 if at is None else at - to
        return Move(self._plain(tp), tp.partition, at, to, read_again=max(back, 0), skipped=max(-back, 0))

    def _plain(self, tp: TopicPartition) -> str:
        name: str = tp.topic
        return name.removeprefix(self._settings.topic_prefix)

    async def write(self, n: int, producer: Any) -> None:
        """One partition: everything in one transaction. What its reader finds is all of it or nothing."""
        topic, models_topic = self._settings.changelog_topic, self._settings.models_topic
        rows: list[Row] = []
        models: set[bytes] = set()
        if self._target.drop_state:
            rows = await without_state(self._consumer, TopicPartition(topic, n))
            models = await keys(self._consumer, TopicPartition(models_topic, n))
        rows.append((POSITION, msgspec.msgpack.encode(self._position(n))))
        await producer.begin_transaction()
        sent = [
            *await send(producer, models_topic, n, (Outgoing(key, None) for key in models)),
            *await send(producer, topic, n, (Outgoing(*row) for row in rows)),
        ]
        await asyncio.gather(*(delivery for delivery, _ in sent))
        offsets = {tp: to for tp, to in self._to.items() if tp.partition == n}
        await producer.send_offsets_to_transaction(offsets, self._settings.group_id)
        await producer.commit_transaction()
        log.info("partition is reset", partition=n, rows=len(rows), models=len(models))

    def _position(self, n: int) -> Position:
        """The position row of a partition.

        A topic that is read again is judged by its own times once more: its newest one is forgotten.
        """
        old = self._positions[n]
        to = {self._plain(tp): offset for tp, offset in self._to.items() if tp.partition == n}
        back = {topic for topic, offset in to.items() if offset < old.next.get(topic, 0)}
        ids = {self._plain(TopicPartition(topic, n)): topic_id for topic, topic_id in self._ids.items()}
        return msgspec.structs.replace(
            old,
            next=old.next | to,
            newest_ts={topic: ts for topic, ts in old.newest_ts.items() if topic not in back},
            signals=0 if self._target.drop_state else old.signals,
            checkpoint=old.checkpoint + 1,
            topic_ids=old.topic_ids | ids,
            signals_reset_at=old.checkpoint + 1 if SIGNALS in back else old.signals_reset_at,
        )
