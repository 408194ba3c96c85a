"""Fetching: from the consumer into buffers, from the buffers into batches. Knows nothing of rebalances.

Memory: of STREAMER_FETCH_BUFFER_MB, aiokafka may hold a quarter in chunks as they came and an eighth in a response on
its way; half is for records that are taken out of their chunks and not applied yet, in buffers, channels and agents.
What producers compressed is unpacked a few record batches at a time, and takes more than this while it is.

Rhythm: a batch with the checkpoint behind it takes 5 ms however few records it has. So after each a partition rests, as
long as it has not enough for a whole one: 10 ms for each partition that we have, so that all of them together are up to
this every 10 ms, and longer while there is more to do. A lone event finds its partition rested.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from streamer import metrics
from streamer.engine.buffers import Buffer, Memory
from streamer.engine.merge import IDLE_MS, Taken, merge
from streamer.engine.position import Take
from streamer.engine.record_batches import unpacked
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.upstream.batches import whole_batches

WAIT_MS: Final = 100  # for records: meanwhile nobody fetches what was taken out of the request that waits
BUSY_WAIT_MS: Final = 10  # while batches are applied: what has room again must not wait for others' records
SOURCES: Final = len(KINDS) + 2  # topics: events, items, signals
REST_MS, REST_MS_A_RECORD = 10.0, 0.8  # a partition of ours; a record of the last batch
SHORTEST_REST_MS: Final = 50.0  # each checkpoint is work for the broker, too
LONGEST_REST: Final = 0.5  # of `checkpoint_ms`
SMALLEST_CHUNK, LARGEST_CHUNK = 64 << 10, 1 << 20  # of a topic partition: a producer's batch, and enough for any speed


class Group(NamedTuple):
    """Topics whose records an agent gets together, in the order of their timestamps."""

    topics: tuple[str, ...]  # as in the contracts
    channel: Any
    patience: float = 1.0  # times the rest between two batches


class Batch(NamedTuple):
    """What one message of a channel is: `waiting` records stand behind it. Whoever takes it says when it is `done`."""

    partition: int
    takes: list[Take]
    epoch: int
    waiting: int
    done: Callable[[], None]


class Source:
    """What one partition gives to one group."""

    def __init__(self, group: Group, partition: int) -> None:
        self.group, self.partition = group, partition
        self.buffers: dict[str, Buffer] = {}
        self.waiting_since: float | None = None
        self.rests_until = 0.0

    @property
    def has_records(self) -> bool:
        """Whether anything is buffered."""
        return any(self.buffers.values())

    def is_full(self, limit: int) -> bool:
        """Whether there is a whole batch, or as much as there is memory for."""
        buffered = sum(map(len, self.buffers.values()))
        return buffered >= limit or any(not buffer.is_hungry for buffer in self.buffers.values())

    def batch(self, limit: int, more: Iterable[str]) -> dict[str, Taken]:
        """What can be handed on, by topic. Empty while a topic is waited for."""
        now = time.monotonic()
        waited = self.waiting_since is not None and (now - self.waiting_since) * 1000 > IDLE_MS
        takes = merge(self.buffers, more, limit, waited=waited)
        self.waiting_since = None if takes else self.waiting_since or now
        return takes


class _Got(NamedTuple):
    """What one look at the consumer brought."""

    topics: frozenset[TopicPartition] = frozenset()
    batches: int = 0
    records: int = 0


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until an event is set, but no longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def fetch_options(settings: Settings) -> dict[str, Any]:
    """How the worker's consumer fetches."""
    memory = settings.fetch_buffer_mb << 20
    chunk = memory // 4 // (SOURCES * settings.partitions)
    return {
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": min(max(chunk, SMALLEST_CHUNK), LARGEST_CHUNK),
        "fetch_max_bytes": memory // 8,
        "fetch_max_wait_ms": WAIT_MS,
        "value_deserializer": whole_batches,
    }


class Fetching:
    """Buffers of all topic partitions of this worker."""

    def __init__(self, settings: Settings, groups: Sequence[Group]) -> None:
        self._settings = settings
        self._memory = Memory(settings.fetch_buffer_mb << 19)
        self._group_of = {settings.topic(topic): group for group in groups for topic in group.topics}
        self._topics = {settings.topic(topic): topic for group in groups for topic in group.topics}
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._sources: dict[tuple[int, int], Source] = {}
        self._room = asyncio.Event()  # something was given back
        self.consumer: Any = None

    def open(self, positions: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> None:
        """Begin anew at these positions; `ends` is where the topic partitions end by now."""
        self.close()
        for tp, position in positions.items():
            group = self._group_of[tp.topic]
            source = self._sources.setdefault((id(group), tp.partition), Source(group, tp.partition))
            self._buffers[tp] = Buffer(position, self._memory, ends[tp])
            source.buffers[self._topics[tp.topic]] = self._buffers[tp]

    def close(self) -> None:
        """Forget what is buffered."""
        for buffer in self._buffers.values():
            buffer.drop()
        self._sources, self._buffers = {}, {}

    @property
    def taken(self) -> int:
        """Bytes of memory that records take which are fetched and not applied."""
        return self._memory.taken

    def sources(self, group: Group) -> list[Source]:
        """What feeds a group."""
        return [source for source in self._sources.values() if source.group is group]

    # ---- in
    async def read(self, is_void: Callable[[], bool]) -> int:
        """One round: every topic partition that has room gives a piece; waits a little where none has any.

        Returns how many records. Raises as the consumer does. What comes once `is_void` is thrown away.
        """
        hungry = {tp: buffer for tp, buffer in self._buffers.items() if buffer.is_hungry}
        by_piece: dict[int, list[TopicPartition]] = {}
        for tp, buffer in hungry.items():
            piece = min(self._settings.batch_records, buffer.piece)
            by_piece.setdefault(1 << (piece.bit_length() - 1), []).append(tp)  # few groups: each is a call or two
        wait_ms = BUSY_WAIT_MS if self._memory.taken else WAIT_MS
        found = (await self._get(list(hungry), min(by_piece, default=1), wait_ms, is_void)).records
        for piece, left in by_piece.items():
            while left and found:
                got = await self._get(left, piece, 0, is_void)
                found += got.records
                left = [tp for tp in left if tp not in got.topics] if got.batches == piece else []
        if is_void():
            return 0
        for tp, buffer in hungry.items():
            buffer.next = await self.consumer.position(tp)
        metrics.FETCHED_BYTES.set(self._memory.taken)
        return found

    async def _get(self, topics: list[TopicPartition], piece: int, wait_ms: int, is_void: Callable[[], bool]) -> _Got:
        """Into the buffers: so many batches of what came for `topics`, at most. Nothing once `is_void`."""
        found = await self.consumer.getmany(*topics, timeout_ms=wait_ms, max_records=piece) if topics else {}
        if is_void():
            return _Got()
        records = 0
        for tp, batches in found.items():
            some = unpacked(batches)
            self._buffers[tp].add(some, len(batches))
            records += len(some)
        if found:
            await asyncio.sleep(0)  # reading a piece takes milliseconds: others want their turn
        return _Got() if is_void() else _Got(frozenset(found), sum(map(len, found.values())), records)

    async def wait_for_room(self) -> None:
        """Until a batch is applied, where nothing may be fetched before; returns at once otherwise.

        A worker that has no partitions waits too: a loop that never waits would not let its heartbeats out.
        """
        self._room.clear()
        if not any(buffer.is_hungry for buffer in self._buffers.values()):
            await wait(self._room, WAIT_MS / 1000)

    # ---- out
    def batch(self, source: Source, epoch: int) -> Batch | None:
        """The next batch of a source, if there is one and its rest is over."""
        limit = self._settings.batch_records
        if not source.has_records or (time.monotonic() < source.rests_until and not source.is_full(limit)):
            return None
        prefix, number = self._settings.topic_prefix, source.partition
        more = [topic for topic in source.buffers if self._unfetched(TopicPartition(prefix + topic, number))]
        takes = source.batch(limit, more)
        if not takes:
            return None
        size = sum(taken.size for taken in takes.values())
        records = sum(len(taken.records) for taken in takes.values())
        metrics.BATCH_RECORDS.observe(records)
        source.rests_until = time.monotonic() + self._rest_s(source, records)
        in_order = [Take(topic, taken.records, taken.after) for topic, taken in takes.items()]
        return Batch(number, in_order, epoch, self._waiting(source), lambda: self._give_back(size))

    def _rest_s(self, source: Source, records: int) -> float:
        """After a batch of so many."""
        least_ms = max(REST_MS * len(self.sources(source.group)), SHORTEST_REST_MS)
        rest_ms = min(least_ms + REST_MS_A_RECORD * records, LONGEST_REST * self._settings.checkpoint_ms)
        return source.group.patience * rest_ms / 1000

    def next_rested_s(self, group: Group) -> float:
        """How long until the first of those that rest and have records is rested."""
        now = time.monotonic()
        rests = [source.rests_until - now for source in self.sources(group) if source.has_records]
        return min((rest for rest in rests if rest > 0), default=float("inf"))

    def _give_back(self, size: int) -> None:
        self._memory.taken -= size
        self._room.set()

    def _waiting(self, source: Source) -> int:
        """Records of a source that are not handed on yet, as far as we know."""
        topics = [TopicPartition(self._settings.topic(topic), source.partition) for topic in source.buffers]
        return sum(len(self._buffers[tp]) + self._unfetched(tp) for tp in topics)

    def _unfetched(self, tp: TopicPartition) -> int:
        """Records that the broker has and we did not fetch yet, as far as we know."""
        buffer = self._buffers[tp]
        return max(buffer.end - buffer.next, (self._last_stable(tp) or 0) - buffer.next, 0)

    def _last_stable(self, tp: TopicPartition) -> int | None:
        """Where a topic partition ended at the broker's last answer; None before the first, and once it is not ours."""
        try:
            end: int | None = self.consumer.last_stable_offset(tp)
        except IllegalStateError:
            return None
        return end

    # ---- how far we are
    def end_offset(self, topic: str, partition: int) -> int | None:
        """Where a topic partition ends, as of the broker's last answer; None before the first."""
        tp = TopicPartition(self._settings.topic(topic), partition)
        buffer = self._buffers.get(tp)
        if buffer is None:
            return None
        end = self._last_stable(tp)
        if end is not None and not buffer and buffer.next >= end:
            return buffer.after  # what is behind it are markers of transactions
        return end

    def lag_seconds(self) -> float:
        """Age of the oldest record that is fetched and not handed on; 0 when there is none."""
        return max(map(_age_s, self._buffers.values()), default=0.0)

    def lag_seconds_of(self, topic: str, partition: int) -> float:
        """As `lag_seconds`, of one topic partition."""
        buffer = self._buffers.get(TopicPartition(self._settings.topic(topic), partition))
        return 0.0 if buffer is None else _age_s(buffer)


def _age_s(buffer: Buffer) -> float:
    return max(time.time() - buffer.first_ms / 1000, 0.0) if buffer else 0.0
