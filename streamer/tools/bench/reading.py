"""Reading topics from beginning to end, and holding what a peer counted against what it was given."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from numpy.typing import NDArray

from streamer.engine.cache import UserCache
from streamer.engine.kafka_clients import admin_client, aiokafka_options
from streamer.errors import StreamerError
from streamer.pipeline.layout import Shape
from streamer.settings import Settings

AT_ONCE: Final = 10_000  # rows unpacked at a time: 50 MB

CountRows = Callable[[list[bytes]], Iterable[int]]


async def records(settings: Settings, topics: Iterable[str]) -> AsyncIterator[Any]:
    """All committed records of topics by their full names, as they are now; order only within a partition."""
    consumer = AIOKafkaConsumer(
        **aiokafka_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        left = [TopicPartition(topic, n) for topic in topics for n in range(settings.partitions)]
        consumer.assign(left)
        ends = await consumer.end_offsets(left)
        while left:
            for batch in (await consumer.getmany(timeout_ms=20)).values():
                for record in batch:
                    yield record
            left = [tp for tp in left if await consumer.position(tp) < ends[tp]]
    finally:
        await consumer.stop()


def check_counts(settings: Settings, count: CountRows, wanted: NDArray[np.int64], *, complete: bool) -> None:
    """Raise StreamerError unless the rows in a peer's changelog count `wanted`[user] events; at most so many unless
    `complete`.
    """
    found = np.zeros(len(wanted), np.int64)
    rows = asyncio.run(_rows(settings))
    users = list(rows)
    for first in range(0, len(users), AT_ONCE):
        part = users[first : first + AT_ONCE]
        found[part] = list(count([rows[user] for user in part]))
    wrong = np.flatnonzero(found != wanted if complete else found > wanted)
    if len(wrong) or not len(users):
        names = ", ".join(f"user-{user}: {found[user]} instead of {wanted[user]}" for user in wrong[:3].tolist())
        raise StreamerError(f"{settings.group_id} counted wrong for {len(wrong)} of {len(wanted)} users: {names}")


async def _rows(settings: Settings) -> dict[int, bytes]:
    """The last row of each user by the user's number, from the changelog of any of the peers."""
    with admin_client(settings) as admin:
        topics = [name for name in admin.list_topics() if settings.group_id in name and "changelog" in name]
    rows = {}
    async for record in records(settings, topics):
        user = re.search(rb"user-(\d+)", record.key)
        if user and record.value is not None:
            rows[int(user[1])] = record.value
    return rows


def count_ours(settings: Settings) -> CountRows:
    """How many events our own rows count."""
    shape = Shape(settings.recent_items, settings.seen_ids, settings.vector_dim)

    def count(rows: list[bytes]) -> Iterable[int]:
        cache = UserCache(len(rows), shape)
        slots = cache.slots(0, [b"%d" % i for i in range(len(rows))], lambda _: list(rows))
        head = cache.users.head[slots]
        counted: list[int] = (head["clicks"].astype(np.int64) + head["purchases"]).tolist()
        return counted

    return count
