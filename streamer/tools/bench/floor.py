"""The floor: fetching and decoding alone, with a consumer like the worker's. No worker on this transport can be faster.

    python -m streamer.tools.bench.floor EVENTS

Prints one JSON line: events, seconds and CPU seconds between the first and the last of so many events.
"""

import asyncio
import sys
import time
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamer.engine.buffers import FIRST_PIECE
from streamer.engine.fetching import fetch_options
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.record_batches import take_apart, unpacked
from streamer.events import KIND_OF_TOPIC
from streamer.pipeline.decode import Limits, decode_events
from streamer.settings import Settings, load


async def read(settings: Settings, events: int) -> dict[str, float]:
    """Read and decode until so many events are in."""
    limits = Limits(settings.max_event_bytes, settings.future_ms, settings.too_old_ms)
    kinds = {settings.topic(topic): kind for topic, kind in KIND_OF_TOPIC.items()}
    take_apart()
    consumer = _consumer(settings)
    await consumer.start()
    consumer.assign([TopicPartition(topic, n) for topic in kinds for n in range(settings.partitions)])
    await consumer.seek_to_beginning()
    start_s, start_cpu_s, seen, skipped = 0.0, 0.0, 0, 0
    try:
        while seen < events:
            got = await consumer.getmany(timeout_ms=100, max_records=FIRST_PIECE)
            for tp, batches in got.items():
                seen += decode_events(kinds[tp.topic], unpacked(batches), limits, 0).size
            if got and not start_s:  # the first fetch opens connections
                start_s, start_cpu_s, skipped = time.monotonic(), time.process_time(), seen
        return {
            "events": seen - skipped,
            "seconds": time.monotonic() - start_s,
            "cpu_seconds": time.process_time() - start_cpu_s,
        }
    finally:
        await consumer.stop()


def _consumer(settings: Settings) -> Any:
    return AIOKafkaConsumer(
        **aiokafka_options(settings),
        **fetch_options(settings),
        auto_offset_reset="earliest",
    )


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(asyncio.run(read(load(), int(sys.argv[1])))).decode() + "\n")
