"""How a subscriber starts with a million compacted profiles: every user once, in bounded memory.

`pytest -m slow -s tests/test_client_startup.py` prints the time and the memory; nothing here asserts a time.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from kafka.partitioner import murmur2

from streamer.engine.topics import create_topics
from streamer.profile import Activity, Change, Interest, ItemEvent, Profile
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka

USERS = 1_000_000
PEAK_MB = 350  # 64 of values, 16 fetched (raw, as bytes and as records), versions of 200,000 users, Python itself
UNSENT = 50  # batches in flight

SUBSCRIBER = """
import json, sys, time
from itertools import islice
from streamer.client import ProfileSubscriber

start, users = sys.argv[1], int(sys.argv[2])
began, first = time.monotonic(), 0.0
with ProfileSubscriber(start=start) as subscriber:
    seen = set()
    for update in islice(subscriber, users):
        first = first or time.monotonic() - began
        seen.add(hash(update.user_id))
    seconds = time.monotonic() - began
with open("/proc/self/status") as status:  # ru_maxrss would begin with what the test itself has
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
peak_mb = (peak_kb * 1024 - sys.getsizeof(seen)) // 2**20
print(json.dumps({"users": len(seen), "first_s": round(first, 1), "seconds": round(seconds, 1), "peak_mb": peak_mb}))
"""

_encode = msgspec.json.Encoder().encode


def small_profile(number: int) -> bytes:
    """A profile of a user with five interests and eight recent items: 2.2 KB."""
    ts = 1_760_000_000_000 + number
    items = tuple(ItemEvent(f"sku-{(number * 7 + k) % 5000}", ts - k * 60_000, "click") for k in range(8))
    interests = tuple(
        Interest(f"tag-{(number + k) % 400}", 3.3 / (k + 1), 0.3 / (k + 1), 0.25, 4.213, 2.5, ts, items[k : k + 2])
        for k in range(5)
    )
    activity = Activity(8, 1, {"EUR": 119.9}, ts - 10**9, ts, (0,) * 16 + (3, 2, 3) + (0,) * 5)
    vector = base64.b64encode(bytes(128)).decode()
    changed = (Change("interest_shifted", "tag-1", 0.22, 0.31),)
    profile = Profile(
        f"user-{number}", 1, ts, ts + 400, interests, vector, 32, "items-v1", activity, items, changed, f"e-{number}"
    )
    return _encode(profile)


async def fill(settings: Settings) -> None:
    """A million profiles in prebuilt batches: as many as the producer of the client would send in a minute."""
    topic = settings.topic("profiles")
    async with AIOKafkaProducer(
        bootstrap_servers=settings.brokers, acks="all", max_batch_size=1 << 20, max_request_size=1 << 21
    ) as producer:
        await producer.partitions_for(topic)
        batches = [producer.create_batch() for _ in range(settings.partitions)]
        sent: list[asyncio.Future[object]] = []

        async def send(partition: int, batch: BatchBuilder) -> None:
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            if len(sent) == UNSENT:
                await asyncio.gather(*sent)
                sent.clear()

        for number in range(USERS):
            key, value = f"user-{number}".encode(), small_profile(number)
            partition = (murmur2(key) & 0x7FFFFFFF) % settings.partitions
            if batches[partition].append(key=key, value=value, timestamp=None) is None:
                await send(partition, batches[partition])
                batches[partition] = producer.create_batch()
                batches[partition].append(key=key, value=value, timestamp=None)
        for partition, batch in enumerate(batches):
            await send(partition, batch)
        await asyncio.gather(*sent)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_users_are_handed_over_once_in_bounded_memory(kafka: EmbeddedKafka, prefix: str) -> None:
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=12)
    create_topics(settings)
    asyncio.run(fill(settings))
    environment = os.environ | {"STREAMER_BROKERS": settings.brokers, "STREAMER_TOPIC_PREFIX": prefix}
    for start in ("snapshot", "beginning"):
        command = [sys.executable, "-c", SUBSCRIBER, start, str(USERS)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        sys.stdout.write(f"\n{start}: {done.stdout}")
        measured = json.loads(done.stdout)
        assert measured["users"] == USERS
        assert measured["peak_mb"] < PEAK_MB
