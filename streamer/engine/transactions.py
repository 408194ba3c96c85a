"""Writing to Kafka: the transactional producer of a partition, and whole batches of records through it.

One transactional id a partition, whoever has it: starting its producer fences every older one.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer

from streamer.engine.kafka_clients import aiokafka_options
from streamer.settings import Settings

BATCH_BYTES: Final = 1 << 20  # of produced batches: one after another leaves for a partition, each takes a round trip
REQUEST_BYTES: Final = 16 << 20  # a rejected record may be as large as its topic allows
TIMEOUT_MS: Final = 60_000  # an owner that vanished inside a transaction holds readers up for at most this long

Headers = list[tuple[str, bytes]]


class Outgoing(NamedTuple):
    """One record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = []  # noqa: RUF012 - never changed


def partition_producer(settings: Settings, partition: int, timeout_ms: int = TIMEOUT_MS) -> AIOKafkaProducer:
    """The producer of a partition, not started yet. Its start waits until older transactions are decided."""
    return AIOKafkaProducer(
        **aiokafka_options(settings),
        transactional_id=f"{settings.group_id}-{partition}",
        transaction_timeout_ms=timeout_ms,
        compression_type=None if settings.compression == "none" else settings.compression,
        max_batch_size=BATCH_BYTES,
        max_request_size=REQUEST_BYTES,
        linger_ms=0,
        request_timeout_ms=30_000,
    )


async def send(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[Outgoing]
) -> list[tuple[Any, int]]:
    """Whole record batches straight to a partition; returns for each its delivery and how many records it has."""
    deliveries = []
    builder, count = producer.create_batch(), 0
    for record in records:
        if not _append(builder, record):
            deliveries.append((await _ship(producer, builder, topic, partition), count))
            builder, count = producer.create_batch(), 0
            if not _append(builder, record):
                raise RuntimeError(f"a record of {len(record.value or b'')} bytes for {topic} does not fit a batch")
        count += 1
    if count:
        deliveries.append((await _ship(producer, builder, topic, partition), count))
    return deliveries


async def _ship(producer: AIOKafkaProducer, builder: Any, topic: str, partition: int) -> Any:
    builder.close()
    return await producer.send_batch(builder, topic, partition=partition)


def _append(builder: Any, record: Outgoing) -> bool:
    return builder.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is not None
