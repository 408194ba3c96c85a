"""What the worker reads of a real broker, and how much of it it holds at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streamer.engine import fetching
from streamer.engine.buffers import FIRST_PIECE, PIECE_BYTES
from streamer.engine.fetching import Batch, Fetching, Group, fetch_options
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.partition import Partition
from streamer.engine.position import Take
from streamer.engine.record_batches import take_apart
from streamer.engine.shared import shared_state
from streamer.pipeline import records as pipeline_records
from streamer.settings import Settings
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Record, deployed

MEMORY_MB = 8
HOT, COLD = 0, 1  # partitions
EVENTS = Group(("clicks", "purchases"), None)


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path, partitions=2, fetch_buffer_mb=MEMORY_MB) as own:
        yield own


class Read(NamedTuple):
    """A record and where it comes from."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None


class Reader:
    """Reads clicks and purchases as the worker does, as fast as the test wants it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.fetching = Fetching(settings, [EVENTS])
        self.batches: list[Batch] = []

    async def start(self) -> None:
        take_apart()
        consumer = self.fetching.consumer = AIOKafkaConsumer(
            **aiokafka_options(self.settings), **fetch_options(self.settings), auto_offset_reset="none"
        )
        await consumer.start()
        topics = [self.settings.topic(topic) for topic in EVENTS.topics]
        everything = [TopicPartition(topic, n) for topic in topics for n in range(self.settings.partitions)]
        consumer.assign(everything)
        for tp in everything:
            consumer.seek(tp, 0)
        self.fetching.open(dict.fromkeys(everything, 0), await consumer.end_offsets(everything))

    @property
    def taken(self) -> int:
        """Bytes that are fetched and not applied."""
        return self.fetching.taken

    async def fetch(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            await self.fetching.read(lambda: False)

    async def fill(self) -> None:
        """Fetch until there is no room, or nothing more."""
        before = -1
        while before != self.taken:
            before = self.taken
            await self.fetch(rounds=5)

    def hand_on(self) -> list[Batch]:
        """A batch of each partition, as far as there is one."""
        batches = [self.fetching.batch(source, epoch=0) for source in self.fetching.sources(EVENTS)]
        handed = [batch for batch in batches if batch is not None]
        self.batches += handed
        return handed

    async def read(self, count: int) -> list[Read]:
        """So many records in all, applied at once; of each partition in the order in which they were handed on."""
        async with asyncio.timeout(60):
            while len(self.records) < count:
                await self.fetch()
                for batch in self.hand_on():
                    batch.done()
        return self.records

    @property
    def records(self) -> list[Read]:
        return records_of(self.batches)


def records_of(batches: list[Batch]) -> list[Read]:
    return [
        Read(take.topic, batch.partition, record.offset, record.timestamp, record.value)
        for batch in batches
        for take in batch.takes
        for record in take.records
    ]


@pytest.fixture
async def reader(deployment: Deployment) -> AsyncIterator[Reader]:
    reading = Reader(deployment.settings)
    yield reading
    if reading.fetching.consumer is not None:
        await reading.fetching.consumer.stop()


async def send(deployment: Deployment, partition: int, values: list[bytes], topic: str = "clicks", **how: Any) -> None:
    """Records straight into a partition."""
    name = deployment.settings.topic(topic)
    async with AIOKafkaProducer(bootstrap_servers=deployment.settings.brokers, linger_ms=5, **how) as producer:
        await asyncio.gather(*[await producer.send(name, value, partition=partition) for value in values])


# ---- rhythm
@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests of a minute."""
    monkeypatch.setattr(fetching, "REST_MS", 60_000.0)
    monkeypatch.setattr(fetching, "LONGEST_REST", 120.0)


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rests."""
    monkeypatch.setattr(fetching, "LONGEST_REST", 0.0)


@pytest.mark.usefixtures("resting")
async def test_a_partition_rests_after_a_batch_and_others_do_not_wait_for_it(
    deployment: Deployment, reader: Reader
) -> None:
    await send(deployment, HOT, [b"first"])
    await reader.start()
    await reader.read(1)
    assert reader.fetching.next_rested_s(EVENTS) == float("inf"), "nothing waits"
    await send(deployment, HOT, [b"second"])
    await send(deployment, COLD, [b"other"])
    assert [record.value for record in await reader.read(2)] == [b"first", b"other"]
    await reader.fill()
    assert reader.hand_on() == []
    assert 50 < reader.fetching.next_rested_s(EVENTS) <= 60


@pytest.mark.usefixtures("resting")
async def test_who_has_a_whole_batch_does_not_rest(deployment: Deployment, reader: Reader) -> None:
    whole = deployment.settings.batch_records
    await send(deployment, HOT, [b"x"] * (2 * whole - 1))
    await reader.start()
    await reader.fill()
    assert len(await reader.read(whole)) == whole
    assert reader.hand_on() == []
    await send(deployment, HOT, [b"x"])
    await reader.fill()
    assert len(records_of(reader.hand_on())) == whole


@pytest.mark.usefixtures("resting")
async def test_who_has_all_the_memory_there_is_does_not_rest(deployment: Deployment, reader: Reader) -> None:
    await send(deployment, HOT, [b"x" * 60_000] * 600)
    await reader.start()
    assert len(await reader.read(500)) >= 500


async def test_rests_grow_with_what_there_is_to_do_up_to_a_quarter_of_a_second(
    deployment: Deployment, reader: Reader
) -> None:
    await send(deployment, HOT, [b"x"])
    await send(deployment, COLD, [b"x"] * 1000)
    await reader.start()
    await reader.fill()
    began = time.monotonic()
    assert len(reader.hand_on()) == 2
    ends = {source.partition: source.rests_until - began for source in reader.fetching.sources(EVENTS)}
    assert ends[HOT] == pytest.approx(0.051, abs=0.015)
    assert ends[COLD] == pytest.approx(0.25, abs=0.015)


# ---- memory
@pytest.mark.parametrize(("size", "count"), [(60_000, 600), (150, 60_000)], ids=["60 KB", "150 B"])
async def test_backlog_is_read_whole_within_its_memory(
    deployment: Deployment, reader: Reader, size: int, count: int
) -> None:
    values = [b"%07d" % n + b"x" * (size - 7) for n in range(count)]
    for partition in (0, 1):
        await send(deployment, partition, values)
    await reader.start()
    await reader.fill()
    first_pieces = 2 * FIRST_PIECE * 2 * max(size, 1 << 14)  # of the producer's batches, with their columns
    assert reader.taken <= (MEMORY_MB << 19) + 2 * PIECE_BYTES + first_pieces
    assert reader.taken >= MEMORY_MB << 18, "half of what it may have: it does not sit idle"
    for partition in (0, 1):
        got = [r.value for r in await reader.read(2 * count) if r.partition == partition]
        assert got == values
    assert reader.taken == 0


async def test_a_backlog_comes_in_large_batches_though_other_topics_are_silent(
    deployment: Deployment, reader: Reader
) -> None:
    """A silent topic's records may be of any size: that makes nobody else's pieces small."""
    await send(deployment, HOT, [b"x" * 150] * 20_000)
    await reader.start()
    await reader.read(20_000)
    assert len(reader.batches) < 40


def test_large_rejected_records_have_a_checkpoint_come_early(deployment: Deployment) -> None:
    partition = Partition(0, shared_state(deployment.settings))
    bad = pipeline_records.Record(b"mug", b"x" * (1 << 20), 0, 0)
    assert not partition.is_full(rows=1)
    applied = 0
    while not partition.is_full(rows=1):
        partition.apply_items([Take("items", pipeline_records.Records.of([bad]), after=0)])
        applied += 1
    assert applied == 16


async def test_what_is_handed_on_and_not_applied_counts(deployment: Deployment, reader: Reader) -> None:
    await send(deployment, HOT, [b"x" * 60_000] * 600)
    await reader.start()
    unapplied = []
    for _ in range(20):
        await reader.fill()
        unapplied += reader.hand_on()
    assert reader.taken <= (MEMORY_MB << 19) + 4 * PIECE_BYTES  # what has nothing buffered is always fetched
    assert len(reader.records) < 600
    for batch in unapplied:
        batch.done()
    assert len(await reader.read(600)) == 600


@pytest.mark.usefixtures("restless")
async def test_a_partition_with_a_huge_backlog_lets_the_others_through(deployment: Deployment, reader: Reader) -> None:
    """In batches, not in seconds. aiokafka fetches from no partition for 100 ms while it has fresh records of another:
    so many batches of the hot one come first, not all of its sixty.
    """
    await send(deployment, HOT, [b"x" * 10_000] * 12_000)
    await reader.start()
    await reader.fill()
    for n in range(5):
        await send(deployment, COLD, [b"%d" % n])
        assert await batches_before_the_cold_one(reader) < 10
    assert sum(record.partition == HOT for record in reader.records) < 12_000, "the hot one was through before"


async def batches_before_the_cold_one(reader: Reader) -> int:
    """How many batches of the hot partition are applied before there is one of the other."""
    for ahead in range(100):
        handed = reader.hand_on()
        for batch in handed:
            batch.done()
        if COLD in {record.partition for record in records_of(handed)}:
            return ahead
        await reader.fetch()
    raise AssertionError("never")


async def test_records_far_above_the_size_of_a_fetch_pass(deployment: Deployment, reader: Reader) -> None:
    """And those behind them."""
    values = [b"small", b"x" * 1_000_000, b"y" * 900_000, b"small again"]
    for partition in (0, 1):
        for topic in EVENTS.topics:
            for value in values:
                await send(deployment, partition, [value], topic, max_request_size=2 << 20)
    await reader.start()
    records = await reader.read(16)
    by_log: dict[tuple[str, int], list[bytes | None]] = {(r.topic, r.partition): [] for r in records}
    for r in records:
        by_log[r.topic, r.partition].append(r.value)
    assert list(by_log.values()) == [values] * 4


# ---- codecs, holes, markers
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(deployment: Deployment, reader: Reader, codec: str | None) -> None:
    values = [b'{"n":%d}' % n for n in range(2000)]
    await send(deployment, 0, values, compression_type=codec)
    await reader.start()
    assert [record.value for record in await reader.read(2000)] == values


async def test_all_codecs_in_one_topic_are_read_in_order(deployment: Deployment, reader: Reader) -> None:
    codecs = [None, "gzip", "snappy", "lz4", "zstd"]
    for codec in codecs:
        await send(deployment, 0, [str(codec).encode()] * 3, compression_type=codec)
    await reader.start()
    assert [record.value for record in await reader.read(15)] == [str(c).encode() for c in codecs for _ in range(3)]


async def test_aborted_records_and_markers_leave_holes_and_nothing_else(
    deployment: Deployment, reader: Reader, prefix: str
) -> None:
    settings = deployment.settings
    clicks = settings.topic("clicks")
    async with AIOKafkaProducer(bootstrap_servers=settings.brokers, transactional_id=prefix) as producer:
        for n in range(6):
            await producer.begin_transaction()
            await producer.send_and_wait(clicks, b"%d" % n, partition=0)
            await (producer.abort_transaction() if n % 2 else producer.commit_transaction())
    await send(deployment, 0, [b"plain"])
    await reader.start()
    records = await reader.read(4)
    assert [(r.offset, r.value) for r in records] == [(0, b"0"), (4, b"2"), (8, b"4"), (12, b"plain")]
    takes = [take for batch in reader.batches for take in batch.takes]
    assert [take.after for take in takes] == [0, *(take.next_offset for take in takes[:-1])], "each follows the last"


async def test_a_topic_that_ends_in_markers_is_read_to_its_end(
    deployment: Deployment, reader: Reader, prefix: str
) -> None:
    clicks = deployment.settings.topic("clicks")
    async with AIOKafkaProducer(bootstrap_servers=deployment.settings.brokers, transactional_id=prefix) as producer:
        for value in (b"kept", b"aborted", b"aborted too"):
            await producer.begin_transaction()
            await producer.send_and_wait(clicks, value, partition=0)
            await (producer.commit_transaction() if value == b"kept" else producer.abort_transaction())
    await reader.start()
    await reader.read(1)
    async with asyncio.timeout(60):
        while reader.fetching.end_offset("clicks", 0) != 1:  # the position of who read all that there is
            await reader.fetch()


# ---- order
async def test_a_backlog_of_two_topics_comes_in_the_order_of_its_timestamps(
    deployment: Deployment, reader: Reader
) -> None:
    """However many fetches it takes, and whichever topic the broker answers with first."""
    start, count = 1_760_000_000_000, 4000
    deployment_records = [
        Record(topic, b"ada", b"x" * 2000, timestamp=start + 2 * n + (topic == "purchases"))
        for topic in EVENTS.topics
        for n in range(count)
    ]
    await asyncio.to_thread(deployment.send, deployment_records)
    await reader.start()
    await reader.read(2 * count)
    times = [
        record.timestamp
        for batch in reader.batches
        for record in sorted((r for take in batch.takes for r in take.records), key=lambda r: r.timestamp)
    ]
    assert times == list(range(start, start + 2 * count))
