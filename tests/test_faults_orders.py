"""Random orders of everything: fetches, batches, acknowledgements, checkpoints, crashes. No commit goes past an event.

One partition with the worker's own engine, checkpointer and store; Kafka is played, because no broker can be told in
which order to answer. At every commit the rows that are durable have to count exactly the events before the offsets
that are.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from streamer.engine.buffers import Buffer, Memory
from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.checkpoint import Checkpointer
from streamer.engine.engine import Engine
from streamer.engine.failpoint import Failpoint
from streamer.engine.fetching import Batch
from streamer.engine.merge import Taken, merge
from streamer.engine.partition import Partition
from streamer.engine.position import Take
from streamer.engine.shared import shared_state
from streamer.engine.store import USER, Store, shared_cache
from streamer.engine.topics import REJECTED_MAX_BYTES
from streamer.events import Item
from streamer.pipeline.records import Record, Records
from streamer.settings import Settings, load
from tests.deployment import made_up, record

EVENTS = 1500
LIFETIME = 300  # turns of the event loop at most: several lives for all events
ITEMS = 5
LOST = 0.01  # of the batches that are produced
TOPICS = ("clicks", "purchases")
Row = tuple[bytes, bytes | None]


class Acknowledged(NamedTuple):
    """What a delivery resolves to."""

    offset: int


class Builder:
    """A record batch that is full after a few records."""

    def __init__(self, room: int) -> None:
        self.room, self.rows = room, list[Row]()

    def append(self, *, timestamp: None, key: bytes, value: bytes | None, headers: object) -> object:
        if len(self.rows) == self.room:
            return None
        self.rows.append((key, value))
        return self

    def close(self) -> None:
        """Nothing is compressed here."""


class Kafka:
    """What is durable: the sources, the changelog and the group's offsets; and the producer of one transaction."""

    def __init__(self, chance: random.Random, settings: Settings) -> None:
        self.chance, self._changelog_topic = chance, settings.changelog_topic
        self.sources = sources(chance)
        self.changelog: list[Row | None] = []  # None: a marker, or a record of a transaction that was aborted
        self.offsets: dict[str, int] = {}
        self.commits = 0
        self._open: list[tuple[int, Row]] = []
        self._opened: dict[str, int] = {}

    async def begin_transaction(self) -> None:
        self._open, self._opened = [], {}

    def create_batch(self) -> Builder:
        return Builder(self.chance.randint(1, 5))

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> "asyncio.Task[Acknowledged]":
        await self.pause()
        offset, arrives = len(self.changelog), self.chance.random() > LOST
        if topic == self._changelog_topic and arrives:
            self._open += [(offset + n, row) for n, row in enumerate(builder.rows)]
            self.changelog += [None] * len(builder.rows)
        return asyncio.create_task(self._acknowledge(offset, arrives=arrives))

    async def _acknowledge(self, offset: int, *, arrives: bool) -> Acknowledged:
        await self.pause()
        if not arrives:
            raise ConnectionError("the broker went away")
        return Acknowledged(offset)

    async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
        await self.pause()
        self._opened = {tp.topic: offset for tp, offset in offsets.items()}

    async def commit_transaction(self) -> None:
        await self.pause()
        for offset, row in self._open:
            self.changelog[offset] = row
        self.changelog.append(None)
        self.offsets |= self._opened
        self.commits += 1
        await self.pause()

    @property
    def is_read(self) -> bool:
        """Whether the group has come to the end of both sources."""
        return all(self.offsets.get(topic, 0) > log[-1].offset for topic, log in self.sources.items())

    async def pause(self) -> None:
        for _ in range(self.chance.randint(0, 3)):
            await asyncio.sleep(0)

    def rows(self, since: int = 0) -> dict[bytes, bytes | None]:
        """The latest committed row of every key."""
        return dict(row for row in self.changelog[since:] if row is not None)


def sources(chance: random.Random) -> dict[str, list[Record]]:
    """Both topics of events, with holes in their offsets."""
    logs: dict[str, list[Record]] = {topic: [] for topic in TOPICS}
    at: Counter[str] = Counter()
    for n, event in zip(range(EVENTS), made_up(users=20, items=ITEMS), strict=False):
        topic, key, value, *_ = record(event)
        assert key is not None
        assert value is not None
        at[topic] += chance.choice((1, 1, 1, 4))
        logs[topic].append(Record(key, value, 1_760_000_000_000 + n // 3, at[topic]))
    return logs


class Life:
    """A worker's life: from its start to a crash, or to the end of the sources."""

    def __init__(self, kafka: Kafka, settings: Settings, auditor: "Auditor") -> None:
        self.kafka, self.chance, self.auditor = kafka, kafka.chance, auditor
        shared = shared_state(settings)
        for n in range(ITEMS):
            shared.catalogue.describe(Item(f"item-{n}", "An item", (f"tag-{n}",)))
        reader = CatalogueReader(settings, shared)
        self.engine = Engine(settings, shared, reader, lambda *_: None, REJECTED_MAX_BYTES)
        self.partition = Partition(0, shared)
        self.store = self.partition.store = Store(settings.data_dir / "0", shared_cache(8))
        self.store.write(kafka.rows(self.store.next_offset).items(), len(kafka.changelog))
        self.partition.load()
        for topic in TOPICS:
            self.partition.position.next.setdefault(topic, 0)
        self.engine.partitions = {0: self.partition}
        failpoint = Failpoint(settings)
        self.checkpointer = Checkpointer(
            self.partition, kafka, settings, lambda *_: None, failpoint, self.engine.shared.slices, REJECTED_MAX_BYTES
        )
        self.left = {topic: self._unread(topic) for topic in TOPICS}
        memory = Memory(1 << 30)
        self.buffers = {topic: Buffer(self.partition.position.next[topic], memory) for topic in TOPICS}

    def _unread(self, topic: str) -> list[Record]:
        return [each for each in self.kafka.sources[topic] if each.offset >= self.partition.position.next[topic]]

    async def live(self) -> None:
        """Until a random end; the database is closed as a crash closes it: nothing more is written."""
        reading, saving = asyncio.create_task(self._read()), asyncio.create_task(self._save())
        lifetime = asyncio.create_task(self._lifetime())
        await asyncio.wait([saving, lifetime], return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, saving, lifetime):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
        self.store.close()

    async def _lifetime(self) -> None:
        for _ in range(self.chance.randint(10, LIFETIME)):
            await asyncio.sleep(0)

    async def _read(self) -> None:
        while any(self.left.values()):
            topic, count = self.chance.choice(TOPICS), self.chance.randint(0, 20)
            if fetched := self.left[topic][:count]:
                self.buffers[topic].add(Records.of(fetched), len(fetched))
                del self.left[topic][:count]
            await self._hand_on()

    async def _hand_on(self) -> None:
        while takes := self._merged():
            batch = [Take(topic, taken.records, taken.after) for topic, taken in takes.items()]
            await self.engine.take_events(Batch(0, batch, self.engine.epoch, 0, lambda: None))
            await self.kafka.pause()

    def _merged(self) -> dict[str, Taken]:
        more = [topic for topic, left in self.left.items() if left]
        return merge(self.buffers, more, self.chance.randint(1, 30), waited=self.chance.random() < 0.5)

    async def _save(self) -> None:
        while not self.kafka.is_read:
            await self.checkpointer.run()
            self.auditor.check()
            await self.kafka.pause()


class Auditor:
    """Compares what is durable."""

    def __init__(self, kafka: Kafka, settings: Settings) -> None:
        self._kafka, self._cache = kafka, shared_state(settings).cache

    def check(self) -> None:
        """The rows count every event before the offsets, and none behind them."""
        kafka, have = self._kafka, self._counts()
        assert have == {
            topic: sum(each.offset < kafka.offsets.get(topic, 0) for each in log)
            for topic, log in kafka.sources.items()
        }

    def _counts(self) -> dict[str, int]:
        rows = {key: row for key, row in self._kafka.rows().items() if key.startswith(USER)}
        slots = self._cache.slots(0, list(rows), lambda keys: [rows[key] for key in keys])
        head = self._cache.users.head[slots]
        self._cache.drop(0)
        return {topic: int(head[topic].sum()) for topic in TOPICS}


def _raise(what: str, exc: BaseException) -> NoReturn:
    raise exc


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_fetches_acknowledgements_and_crashes_commits_past_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("streamer.engine.engine.leave", _raise)
    settings = load(data_dir=tmp_path, cache_users=1000, batch_records=100, seen_ids=1)
    kafka = Kafka(random.Random(seed), settings)
    auditor = Auditor(kafka, settings)
    lives = 0
    while not kafka.is_read:
        asyncio.run(Life(kafka, settings, auditor).live())
        lives += 1
    assert lives > 1
    assert kafka.commits > lives
    auditor.check()
