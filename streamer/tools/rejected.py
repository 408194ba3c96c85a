"""What workers turned away: the records of `rejected`, read back, and which of them were put back since.

A record that was put back (`rejected_replay.py`) has a mark behind it in the same partition, written in the transaction
that put it back: no key, no value, reason `replayed`, and as its source the place in `rejected`. Retention deletes it
after what it marks, never before.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, get_args

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streamer.engine.changelog import POLL_MS, pieces
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.position import CATALOGUE
from streamer.engine.topics import require_topics
from streamer.errors import BrokerError, SettingsError
from streamer.events import KIND_OF_TOPIC
from streamer.pipeline.decode import Reason
from streamer.settings import Settings

REPLAYED: Final = "replayed"  # the reason of a mark
_OURS: Final = ("reason", "detail", "source_topic", "source_partition", "source_offset")  # behind the record's own
_left_out = re.compile(r"; left out here: (.+) \(\d+ bytes fit in\)$").search  # as the checkpoint says it


class Place(NamedTuple):
    """Where a record lies, under the topic's full name."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Rejection(msgspec.Struct, frozen=True):
    """One rejected record: where it lies, since when (Unix ms), why, where it came from, and itself."""

    place: Place
    at_ms: int
    reason: str
    detail: str
    source: Place
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # its own

    @property
    def left_out(self) -> str:
        """What of it did not fit into `rejected`; empty where all of it is there."""
        found = _left_out(self.detail)
        return found[1] if found else ""


class Wanted(msgspec.Struct, frozen=True):
    """Which rejected records: what is empty or None asks nothing. Times are when they were rejected (Unix ms)."""

    reasons: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()  # as in the contracts, without prefix
    key: str | None = None  # of the record, or the user_id in its value
    since_ms: int | None = None
    until_ms: int | None = None  # the first that is too late

    def holds(self, rejection: Rejection, settings: Settings) -> bool:
        """Whether it is one of them."""
        return (
            (not self.reasons or rejection.reason in self.reasons)
            and (not self.topics or rejection.source.topic in map(settings.topic, self.topics))
            and (self.since_ms is None or rejection.at_ms >= self.since_ms)
            and (self.until_ms is None or rejection.at_ms < self.until_ms)
            and (self.key is None or self.key in _names(rejection))
        )


def check(wanted: Wanted) -> None:
    """Raise SettingsError for reasons and topics that there are not: most often a slip of the pen."""
    for option, given, known in (
        ("--reason", wanted.reasons, get_args(Reason)),
        ("--topic", wanted.topics, (*KIND_OF_TOPIC, CATALOGUE)),
    ):
        if unknown := sorted(set(given) - set(known)):
            raise SettingsError(f"{option} {', '.join(unknown)}: there are {', '.join(known)}")


class _User(msgspec.Struct):
    user_id: str


_user = msgspec.json.Decoder(_User).decode


def _names(rejection: Rejection) -> Iterator[str]:
    yield (rejection.key or b"").decode(errors="replace")
    try:
        yield _user(rejection.value or b"").user_id
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of committed records, without a group. Raises TopicsError, and what Kafka says as BrokerError."""
    require_topics(settings)
    try:
        async with AIOKafkaConsumer(
            **aiokafka_options(settings),
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=POLL_MS,  # the next partition waits for what is asked of this one beyond its end
            max_partition_fetch_bytes=4 << 20,
        ) as consumer:
            yield consumer
    except KafkaError as exc:
        raise BrokerError(f"Kafka at {settings.brokers} did not do what we asked: {exc}") from exc


async def read(consumer: Any, tp: TopicPartition, start: int) -> AsyncIterator[Any]:
    """The records of a partition from `start` to its present end."""
    end = (await consumer.end_offsets([tp]))[tp]
    async for records in pieces(consumer, tp, start, end):
        for record in records:
            yield record


async def rejections(settings: Settings, consumer: Any, wanted: Wanted) -> AsyncIterator[tuple[Rejection, bool]]:
    """The rejected records that are wanted, each with whether it was put back; each partition's in order.

    A partition is read twice, marks first: they lie behind what they mark.
    """
    for number in range(settings.partitions):
        tp = TopicPartition(settings.topic("rejected"), number)
        start = await _start(consumer, tp, wanted.since_ms)
        if start is None:
            continue
        marked = {each.source async for each in _parsed(consumer, tp, start) if each.reason == REPLAYED}
        async for rejection in _parsed(consumer, tp, start):
            if rejection.reason != REPLAYED and wanted.holds(rejection, settings):
                yield rejection, rejection.place in marked


async def _start(consumer: Any, tp: TopicPartition, since_ms: int | None) -> int | None:
    """The first offset from a time on; None where there is none."""
    if since_ms is None:
        return int((await consumer.beginning_offsets([tp]))[tp])
    found = (await consumer.offsets_for_times({tp: since_ms}))[tp]
    return None if found is None else int(found.offset)


async def _parsed(consumer: Any, tp: TopicPartition, start: int) -> AsyncIterator[Rejection]:
    async for record in read(consumer, tp, start):
        if (rejection := parse(record)) is not None:
            yield rejection


def parse(record: Any) -> Rejection | None:
    """A record of `rejected`; None for one that no worker wrote."""
    own, ours = record.headers[: -len(_OURS)], record.headers[-len(_OURS) :]
    if tuple(name for name, _ in ours) != _OURS:
        return None
    reason, detail, topic, partition, offset = ((value or b"").decode(errors="replace") for _, value in ours)
    if not (partition.isdecimal() and offset.isdecimal()):
        return None
    return Rejection(
        Place(record.topic, record.partition, record.offset),
        record.timestamp,
        reason,
        detail,
        Place(topic, int(partition), int(offset)),
        record.key,
        record.value,
        tuple(own),
    )
