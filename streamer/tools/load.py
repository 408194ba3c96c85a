"""A fast keyed producer for event lines: prebuilt batches, partitioned as every other client does by default.

aiokafka's `send` costs 8–27 µs a record, a prebuilt batch 1–4 µs (measured): so records of a partition are collected
in a batch and whole batches are sent. Records of a key keep their order; items are acknowledged before the events
that come after them leave, so that a worker knows an item when its first event arrives.
"""

import asyncio
from collections import Counter
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streamer.engine.kafka_clients import aiokafka_options
from streamer.errors import BrokerError, TopicsError
from streamer.settings import Settings
from streamer.tools.lines import LINE_TYPES
from streamer.upstream import partition_of

ITEMS = LINE_TYPES["item"].topic
TOPICS = tuple(dict.fromkeys(line_type.topic for line_type in LINE_TYPES.values()))
FLUSH_RECORDS = 10_000  # about 2 MB: at most so much lies in memory unacknowledged, and is in doubt after an error
BATCH_BYTES = 262_144  # a batch this large costs less than 0.1 µs a record in overhead; brokers take up to 1 MiB

_partition_of = lru_cache(maxsize=1 << 17)(partition_of)  # in Python it takes 5–15 µs, most of what a record costs


class Summary(msgspec.Struct, frozen=True):
    """What a run did: lines read or made, records sent by topic, lines skipped; user events a second, items apart."""

    lines: int
    sent: dict[str, int]
    skipped: int
    seconds: float
    events_per_second: float


def summarise(sent: Counter[str], *, skipped: int, seconds: float) -> Summary:
    """A Summary of so many records by contract topic in so many seconds."""
    events = sent.total() - sent[ITEMS]
    per_second = round(events / seconds, 1) if seconds > 0 else 0.0
    return Summary(sent.total() + skipped, dict(sent), skipped, round(seconds, 3), per_second)


class Loader:
    """Sends records and waits for every acknowledgement.

        async with Loader(settings) as loader:
            await loader.send("clicks", b"ada", b"{…}")

    Idempotent, acks=all. Leaving the block flushes, unless an error leaves it: then unsent records are dropped.
    Raises BrokerError when Kafka is not there or refuses a record, TopicsError when a topic is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.sent: Counter[str] = Counter()  # acknowledged records by contract topic
        self._settings = settings
        self._partitions: dict[str, int] = {}
        self._open: dict[tuple[str, int], Any] = {}
        self._deliveries: list[tuple[str, int, asyncio.Future[Any]]] = []
        self._unflushed = 0
        self._items_unflushed = False

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            **aiokafka_options(self._settings), enable_idempotence=True, max_batch_size=BATCH_BYTES, linger_ms=0
        )
        try:
            await self._producer.start()
            self._partitions = await self._count_partitions()
        except KafkaError as exc:
            await self._producer.stop()
            raise BrokerError(f"no answer from Kafka at {self._settings.brokers} ({exc!r}): is it running?") from None
        except BaseException:
            await self._producer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
        finally:
            await self._producer.stop()
            await asyncio.gather(*(future for _, _, future in self._deliveries), return_exceptions=True)

    async def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Take in one record of a contract topic; it is acknowledged by the next `flush`, which comes by itself."""
        if self._items_unflushed and topic != ITEMS:
            await self.flush()
        place = (topic, _partition_of(key, self._partitions[topic]))
        batch = self._open.get(place)
        if batch is None or batch.append(timestamp=None, key=key, value=value) is None:
            batch = await self._next_batch(place)
            batch.append(timestamp=None, key=key, value=value)
        self._unflushed += 1
        self._items_unflushed |= topic == ITEMS
        if self._unflushed >= FLUSH_RECORDS:
            await self.flush()

    async def flush(self) -> None:
        """Send what is open and wait until all of it is acknowledged. Raises BrokerError naming the first failure."""
        for place in list(self._open):
            await self._dispatch(place)
        deliveries, self._deliveries = self._deliveries, []
        results = await asyncio.gather(*(future for _, _, future in deliveries), return_exceptions=True)
        for (topic, records, _), result in zip(deliveries, results, strict=True):
            if isinstance(result, BaseException):
                raise BrokerError(f"{topic}: {records} records were not acknowledged: {result!r}") from result
            self.sent[topic] += records
        self._unflushed, self._items_unflushed = 0, False

    async def _next_batch(self, place: tuple[str, int]) -> Any:
        if place in self._open:
            await self._dispatch(place)
        batch = self._open[place] = self._producer.create_batch()
        return batch

    async def _dispatch(self, place: tuple[str, int]) -> None:
        topic, partition = place
        batch = self._open.pop(place)
        batch.close()
        try:
            future = await self._producer.send_batch(batch, self._settings.topic(topic), partition=partition)
        except KafkaError as exc:
            raise BrokerError(f"{topic}: {batch.record_count()} records could not be sent: {exc!r}") from exc
        self._deliveries.append((topic, batch.record_count(), future))

    async def _count_partitions(self) -> dict[str, int]:
        """Partitions of each topic, asked of the broker without creating any."""
        cluster = await self._producer.client.fetch_all_metadata()
        found = {topic: cluster.partitions_for_topic(self._settings.topic(topic)) or () for topic in TOPICS}
        missing = [self._settings.topic(topic) for topic, partitions in found.items() if not partitions]
        if missing:
            raise TopicsError(f"missing topics: {', '.join(missing)}. Make them with `streamer topics create`")
        return {topic: len(partitions) for topic, partitions in found.items()}
