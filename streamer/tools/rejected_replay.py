"""Rejected records back into their topics, after a fix: exactly once, however often it is run.

    1. a producer with a transactional id of its own: another replay that is under way cannot commit any more
    2. `rejected` is read to its end, marks of earlier replays included
    3. in one transaction: records with their key, value and headers, and the mark of each behind it in `rejected`

A record goes to the partition of its key, as its producer should have sent it. Its Kafka timestamp is the time of the
replay, which is when it is appended: workers merge topics by it, and Kafka's retention counts from it. When the event
happened stands in the event. Headers say where it was: `replayed_from` (topic/partition/offset in `rejected`) and
`replayed_at` (Unix ms).

Left where it is: what these settings would reject again, what does not fit, and an item that was described anew since.
"""

import asyncio
import gzip
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced

from streamer.engine.changelog import last_position
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.position import CATALOGUE
from streamer.engine.topics import largest_records
from streamer.engine.transactions import BATCH_BYTES, REQUEST_BYTES, Outgoing, send
from streamer.errors import StreamerError
from streamer.events import KIND_OF_TOPIC
from streamer.pipeline.decode import Limits, Rejected, decode_events, decode_items
from streamer.pipeline.records import Record, Records
from streamer.settings import Settings
from streamer.tools.rejected import REPLAYED, Place, Rejection, Wanted, read, reader, rejections
from streamer.upstream import partition_of

AT_ONCE: Final = 500  # records of a transaction: some 20 ms of wall time each, far below the time-out
AT_ONCE_BYTES: Final = 8 << 20
RECORD_BYTES: Final = 1024  # of a batch and a record besides key, value and headers
FROM, AT = "replayed_from", "replayed_at"  # headers


class Skipped(msgspec.Struct, frozen=True):
    """A record that stays where it is, and why."""

    place: str
    source: str
    why: str


class Replay(msgspec.Struct, frozen=True):
    """What a replay does, or did. `before` were put back by an earlier one."""

    matched: int
    replayed: int
    before: int
    skipped: tuple[Skipped, ...]
    done: bool


def plan(settings: Settings, wanted: Wanted, limit: int | None = None) -> Replay:
    """What a replay of at most `limit` records would do. Changes nothing.

    Raises TopicsError or BrokerError when topics or the broker are not there.
    """
    return asyncio.run(_replay(settings, wanted, limit, write=False))


def carry_out(settings: Settings, wanted: Wanted, limit: int | None = None) -> Replay:
    """Do it. Raises as `plan` does, and StreamerError when another replay was started: then run it again."""
    return asyncio.run(_replay(settings, wanted, limit, write=True))


async def _replay(settings: Settings, wanted: Wanted, limit: int | None, *, write: bool) -> Replay:
    async with AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(reader(settings))
        producer = await stack.enter_async_context(transactional(settings)) if write else None
        judge = Judge(settings, await stack.enter_async_context(reader(settings)))
        await judge.look()
        return await _put_back(settings, consumer, producer, judge, wanted, limit)


async def _put_back(
    settings: Settings, consumer: Any, producer: Any, judge: "Judge", wanted: Wanted, limit: int | None
) -> Replay:
    matched = replayed = before = 0
    skipped: list[Skipped] = []
    sender = Sender(settings, producer)
    async for rejection, was_replayed in rejections(settings, consumer, wanted):
        matched += 1
        if was_replayed:
            before += 1
        elif problem := await judge.problem(rejection):
            skipped.append(Skipped(str(rejection.place), str(rejection.source), problem))
        else:
            replayed += 1
            await sender.put(rejection)
        if replayed == limit:
            break
    await sender.flush()
    return Replay(matched, replayed, before, tuple(skipped), producer is not None)


def transactional(settings: Settings) -> AIOKafkaProducer:
    """The producer of replays; its start ends every other's.

    Compressed: what was rejected unpacked may have been sent packed, and has to fit into its topic again.
    """
    return AIOKafkaProducer(
        **aiokafka_options(settings),
        transactional_id=f"{settings.group_id}-rejected-replay",
        compression_type="gzip",
        max_batch_size=BATCH_BYTES,
        max_request_size=REQUEST_BYTES,
    )


class Sender:
    """Collects records and sends them with their marks; without a producer nothing is sent."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer | None) -> None:
        self._settings, self._producer = settings, producer
        self._waiting: list[Rejection] = []
        self._bytes = 0

    async def put(self, rejection: Rejection) -> None:
        """Send it, perhaps later."""
        if self._producer is None:
            return
        self._waiting.append(rejection)
        self._bytes += len(rejection.value or b"")
        if len(self._waiting) >= AT_ONCE or self._bytes >= AT_ONCE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Send what waits, in one transaction. Raises StreamerError when another replay was started."""
        if not self._waiting:
            return
        batches = _batches(self._waiting, self._settings.partitions, time.time_ns() // 1_000_000)
        self._waiting, self._bytes = [], 0
        assert self._producer is not None  # noqa: S101 - or nothing would wait
        try:
            async with self._producer.transaction():
                for (topic, number), records in batches.items():
                    sent = await send(self._producer, topic, number, records)
                    await asyncio.gather(*(delivery for delivery, _ in sent))
        except ProducerFenced as exc:
            raise StreamerError("another replay was started meanwhile: let it end, then run this one again") from exc


def _batches(waiting: Iterable[Rejection], partitions: int, now_ms: int) -> dict[tuple[str, int], list[Outgoing]]:
    """The records and their marks by where they go, in order."""
    batches: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
    for each in waiting:
        batches[each.source.topic, _target(each, partitions)].append(_record(each, now_ms))
        batches[each.place.topic, each.place.partition].append(_mark(each.place))
    return batches


def _target(rejection: Rejection, partitions: int) -> int:
    """The partition of its key; without one, where it was."""
    return rejection.source.partition if rejection.key is None else partition_of(rejection.key, partitions)


def _record(rejection: Rejection, now_ms: int) -> Outgoing:
    own: list[Any] = [(name, value) for name, value in rejection.headers if name not in {FROM, AT}]
    said = [(FROM, str(rejection.place).encode()), (AT, b"%d" % now_ms)]
    return Outgoing(rejection.key, rejection.value, [*own, *said])


def _mark(place: Place) -> Outgoing:
    source = [("source_topic", place.topic.encode()), ("source_partition", b"%d" % place.partition)]
    why = [("reason", REPLAYED.encode()), ("detail", b"put back into its topic")]
    return Outgoing(None, None, [*why, *source, ("source_offset", b"%d" % place.offset)])


class Judge:
    """Tells what would become of a record that is put back now. `consumer` is its own: it reads here and there."""

    def __init__(self, settings: Settings, consumer: Any) -> None:
        self._settings, self._consumer = settings, consumer
        self._limits = Limits(settings.max_event_bytes, settings.future_ms, settings.too_old_ms)
        self._topics = {settings.topic(name): name for name in (*KIND_OF_TOPIC, CATALOGUE)}
        self._largest: dict[str, int] = {}
        self._newest_ts: list[dict[str, int]] = []
        self._items: dict[int, tuple[int, dict[bytes | None, int]]] = {}

    async def look(self) -> None:
        """Where the workers stand, and what the topics take."""
        settings = self._settings
        self._largest = largest_records(settings, list(self._topics))
        for number in range(settings.partitions):
            tp = TopicPartition(settings.changelog_topic, number)
            self._newest_ts.append((await last_position(self._consumer, tp, settings)).newest_ts)

    async def problem(self, rejection: Rejection) -> str | None:
        """Why it cannot be put back, None when it can."""
        if rejection.left_out:
            return (
                f"its {rejection.left_out} did not fit into {rejection.place.topic}: send it again from where it came"
            )
        name = self._topics.get(rejection.source.topic)
        if name is None:
            return f"{rejection.source.topic} is not a topic of this deployment: check STREAMER_TOPIC_PREFIX"
        if bad := self._rejected(name, rejection):
            return f"would be rejected again: {bad.reason}: {bad.detail}"
        if (limit := self._largest[rejection.source.topic]) < _packed_bytes(rejection, limit):
            return f"larger than the {limit} bytes that {rejection.source.topic} takes: raise its max.message.bytes"
        if name == CATALOGUE and await self._is_superseded(rejection):
            return "the item was written again since: this would bring the older description back"
        return None

    def _rejected(self, name: str, rejection: Rejection) -> Rejected | None:
        """What the pipeline says to it, under these settings."""
        records = [Record(rejection.key, rejection.value, time.time_ns() // 1_000_000, offset=0)]
        if name == CATALOGUE:
            rejected = decode_items(records, self._limits)[1]
        else:
            newest = self._newest_ts[_target(rejection, self._settings.partitions)].get(name, 0)
            rejected = decode_events(KIND_OF_TOPIC[name], Records.of(records), self._limits, newest).rejected
        return rejected[0] if rejected else None

    async def _is_superseded(self, rejection: Rejection) -> bool:
        source = rejection.source
        known = self._items.get(source.partition)
        if known is None or source.offset < known[0]:
            known = self._items[source.partition] = source.offset, await self._last_offsets(source)
        return known[1].get(rejection.key, -1) > source.offset

    async def _last_offsets(self, place: Place) -> dict[bytes | None, int]:
        """Where each key was written last, from a place on."""
        tp = TopicPartition(place.topic, place.partition)
        begin = max(place.offset, (await self._consumer.beginning_offsets([tp]))[tp])
        return {record.key: record.offset async for record in read(self._consumer, tp, begin)}


def _packed_bytes(rejection: Rejection, limit: int) -> int:
    """An upper bound of what it takes in its topic; packed only where that decides."""
    headers = sum(len(name) + len(value or b"") for name, value in rejection.headers)
    plain = len(rejection.key or b"") + len(rejection.value or b"") + headers + RECORD_BYTES
    if plain <= limit:
        return plain
    return plain - len(rejection.value or b"") + len(gzip.compress(rejection.value or b"", 6))
