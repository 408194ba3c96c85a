"""Records whose headers have names that are not UTF-8: read like others, or rejected with their headers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from streamer.engine.record_batches import Chunk, records, take_apart, unpacked
from streamer.tools.kafka import EmbeddedKafka
from streamer.upstream.batches import _PartitionRecords, whole_batches
from tests.deployment import counted, deployed

NOW = 1_760_000_000_000
CODECS = range(5)  # none, gzip, snappy, lz4, zstd
Content = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

maybe_bytes = st.none() | st.binary(max_size=300)
contents = st.lists(
    st.tuples(st.integers(0, 1 << 45), maybe_bytes, maybe_bytes, st.lists(st.tuples(st.text(max_size=9), maybe_bytes))),
    min_size=1,
    max_size=8,
)


class Name(str):
    """A header's name that clients written in Python send as these bytes."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        return b"tr\xff\xe9ce"


BAD = [(Name("trace"), b"7"), ("fine", b"")]
READ = [("tr\\xff\\xe9ce", b"7"), ("fine", b"")]


def packed(builder: Any, made_of: list[Content], codec: int) -> bytes:
    batch = builder(2, codec, 0, -1, -1, -1, 1 << 20)
    for offset, (timestamp, key, value, headers) in enumerate(made_of):
        assert batch.append(offset, timestamp, key, value, headers) is not None
    return bytes(batch.build())


def in_short(found: Any) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers), r.checksum) for r in found]


@given(contents, st.sampled_from(CODECS))
def test_every_batch_is_unpacked_as_aiokafka_does(made_of: list[Content], codec: int) -> None:
    batch = packed(DefaultRecordBatchBuilder, made_of, codec)
    assert in_short(records(memoryview(batch))) == in_short(DefaultRecordBatch(batch))


@given(contents, st.integers(0, 300))
def test_a_batch_that_is_cut_off_is_called_corrupt(made_of: list[Content], missing: int) -> None:
    batch = packed(DefaultRecordBatchBuilder, made_of, 0)
    with pytest.raises(CorruptRecordException):
        list(records(memoryview(batch)[: max(len(batch) - 1 - missing, 61)]))


@pytest.mark.parametrize("codec", CODECS)
def test_a_name_that_is_not_utf_8_reads_as_its_bytes_in_hex(codec: int) -> None:
    good, bad = (NOW, b"k", b"good", []), (NOW + 5, b"k", b"bad", BAD)
    batch = packed(_DefaultRecordBatchBuilderPy, [good, bad, good], codec)
    lenient = Chunk(batch + batch)
    assert lenient.size_in_bytes() == 2 * len(batch)
    found = []
    while lenient.has_next():
        unpacked = lenient.next_batch()
        assert unpacked.validate_crc()
        assert unpacked.next_offset == 3
        found.append({r.offset: (r.timestamp, r.value, list(r.headers)) for r in unpacked})
    assert found == [{0: (NOW, b"good", []), 1: (NOW + 5, b"bad", READ), 2: (NOW, b"good", [])}] * 2


def fetched(position: int, *batches: bytes) -> _PartitionRecords:
    """What a consumer of whole batches that had come to `position` fetches."""
    chunk, where = Chunk(b"".join(batches)), TopicPartition("clicks", 0)
    return _PartitionRecords(where, chunk, [], position, None, whole_batches, True, fetcher.READ_COMMITTED)


def at_offset(batch: bytes, offset: int) -> bytes:
    """A batch as the broker stores it: its base offset is no part of its checksum."""
    return offset.to_bytes(8, "big") + batch[8:]


@pytest.mark.parametrize("codec", CODECS)
def test_whole_batches_go_on_amid_a_batch_and_may_be_of_any_age(codec: int) -> None:
    made_of = [(NOW + n, b"k", b"%d" % n, BAD) for n in range(3)]
    new = at_offset(packed(_DefaultRecordBatchBuilderPy, made_of, codec), 3)
    last = at_offset(packed(DefaultRecordBatchBuilder, [(NOW, None, None, [])], codec), 6)
    old = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1 << 16)
    assert old.append(7, timestamp=NOW, key=b"k", value=b"old") is not None
    newer, older = fetched(4, new, last), fetched(7, bytes(old.build()))
    found = unpacked([*newer, *older])
    assert [(r.offset, r.value) for r in found] == [(4, b"1"), (5, b"2"), (6, None), (7, b"old")]
    assert found[0].headers == tuple(READ)
    assert (newer.next_fetch_offset, older.next_fetch_offset) == (7, 8)


def test_a_batch_with_a_wrong_checksum_is_corrupt() -> None:
    batch = bytearray(packed(DefaultRecordBatchBuilder, [(NOW, b"k", b"value", [])], 0))
    batch[-2] ^= 1
    with pytest.raises(CorruptRecordException, match="Invalid CRC"):
        list(fetched(0, bytes(batch)))


# ---- what we rely on
def test_the_class_that_we_replace_is_the_one_that_aiokafka_fetches_with() -> None:
    assert fetcher.MemoryRecords in (MemoryRecords, Chunk)
    take_apart()
    take_apart()
    assert fetcher.MemoryRecords is Chunk


async def test_aiokafka_still_cannot_read_such_records_and_still_unpacks_with_our_class(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first part fails, `streamer.engine.record_batches` has no purpose any more."""
    with deployed(kafka.brokers, tmp_path, partitions=1) as deployment:
        topic = deployment.settings.topic("clicks")
        await asyncio.to_thread(send, kafka, topic, {b"good": [], b"bad": BAD, b"good too": []})
        monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
        with pytest.raises(UnicodeDecodeError):
            await read(kafka, topic, 3)
        take_apart()
        assert await read(kafka, topic, 3) == [(b"good", ()), (b"bad", tuple(READ)), (b"good too", ())]


def send(kafka: EmbeddedKafka, topic: str, values: dict[bytes, Any], key: bytes | None = None) -> None:
    """One batch each."""
    producer = KafkaProducer(bootstrap_servers=kafka.brokers)
    for value, headers in values.items():
        producer.send(topic, value, key=key, headers=headers).get(30)
    producer.close()


async def read(kafka: EmbeddedKafka, topic: str, count: int) -> list[Any]:
    async with AIOKafkaConsumer(bootstrap_servers=kafka.brokers, enable_auto_commit=False) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        found: list[Any] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                for got in (await consumer.getmany(timeout_ms=500)).values():
                    found += [(r.value, r.headers) for r in got]
        return found


# ---- the worker
def test_an_event_counts_whatever_its_headers_are_called(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with deployed(kafka.brokers, tmp_path, publish_within_ms=1000) as deployment:
        worker = deployment.worker()
        topic = deployment.settings.topic
        item = b'{"item_id":"mug","title":"Mug","tags":["kitchen"]}'
        send(kafka, topic("items"), {item: BAD}, key=b"mug")
        send(kafka, topic("clicks"), {click(0): [], click(1): BAD, b"{oops": BAD, click(2): []}, key=b"bob")
        worker.wait_ready()
        deployment.until(lambda: counted(deployment.latest_of("bob")) == 3, "all clicks counted")
        assert deployment.latest_of("bob")["interests"][0]["tag"] == "kitchen"
        [rejected] = deployment.until(lambda: deployment.read(topic("rejected")), "the bad one")
        assert (rejected.value, rejected.headers[:2]) == (b"{oops", READ)
        assert worker.stop() == 0


def click(n: int) -> bytes:
    return b'{"event_id":"c%d","user_id":"bob","item_id":"mug","ts":%d}' % (n, NOW + n)
