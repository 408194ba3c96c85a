import asyncio
import gzip
import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner import murmur2

from streamer.engine.kafka_clients import kafka_python_options
from streamer.engine.topics import create_topics
from streamer.errors import BrokerError, StreamerError, TopicsError
from streamer.settings import Settings
from streamer.tools import replay, simulate
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.lines import EventFileError
from streamer.tools.load import FLUSH_RECORDS, Loader
from streamer.tools.replay import Pace
from streamer.upstream import partition_of

PARTITIONS = 4


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    ours = Settings(brokers=kafka.brokers, topic_prefix=prefix, partitions=PARTITIONS)
    create_topics(ours)
    return ours


def records(settings: Settings, topic: str) -> list:
    """All records of a topic, partition by partition."""
    consumer = KafkaConsumer(**kafka_python_options(settings))
    places = [TopicPartition(settings.topic(topic), partition) for partition in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    found = []
    while any(consumer.position(place) < ends[place] for place in places):
        for batch in consumer.poll(timeout_ms=500).values():
            found += batch
    consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))


def click(number: int, user: str = "ada", ts: int = 1000, **more: object) -> bytes:
    fields = {"type": "click", "event_id": f"e{number}", "user_id": user, "item_id": "tent", "ts": ts, **more}
    return json.dumps(fields).encode() + b"\n"


ITEM = b'{"type":"item","item_id":"tent","title":"Tent","tags":["outdoor"]}\n'


def write(path: Path, *lines: bytes) -> Path:
    text = b"".join(lines)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_every_line_arrives_once_keyed_and_without_its_type(settings: Settings, tmp_path: Path):
    lines = [click(number, f"user-{number % 50}") for number in range(3 * FLUSH_RECORDS // 2)]
    summary = replay.run(settings, files=[write(tmp_path / "events.jsonl.gz", ITEM, *lines)])
    found = records(settings, "clicks")
    values = [json.loads(record.value) for record in found]
    assert sorted(value["event_id"] for value in values) == sorted(f"e{number}" for number in range(len(lines)))
    assert all(record.key.decode() == value["user_id"] for record, value in zip(found, values, strict=True))
    assert not any("type" in value for value in values)
    assert summary.sent == {"items": 1, "clicks": len(lines)}
    assert (summary.lines, summary.skipped) == (len(lines) + 1, 0)


def test_events_of_a_user_keep_their_order_in_one_partition(settings: Settings, tmp_path: Path):
    lines = [click(number, f"user-{number % 7}") for number in range(3000)]
    replay.run(settings, files=[write(tmp_path / "events.jsonl", *lines)])
    by_user = defaultdict(list)
    for record in records(settings, "clicks"):
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS
        by_user[record.key].append(int(json.loads(record.value)["event_id"][1:]))
    assert [len(numbers) for numbers in by_user.values()] == pytest.approx([3000 / 7] * 7, abs=1)
    assert all(numbers == sorted(numbers) for numbers in by_user.values())


@given(st.binary(min_size=1))
def test_a_key_hashes_as_other_clients_hash_it(key: bytes):
    assert partition_of(key, PARTITIONS) == (murmur2(key) & 0x7FFFFFFF) % PARTITIONS


def test_files_are_sent_in_the_order_given(settings: Settings, tmp_path: Path):
    files = [write(tmp_path / "late.jsonl", click(1)), write(tmp_path / "early.jsonl", click(2))]
    replay.run(settings, files=files)
    assert [json.loads(record.value)["event_id"] for record in records(settings, "clicks")] == ["e1", "e2"]


async def test_an_item_is_acknowledged_before_the_event_after_it_leaves(settings: Settings):
    async with Loader(settings) as loader:
        await loader.send("clicks", b"ada", b"{}")
        await loader.send("items", b"tent", b"{}")
        assert loader.sent["items"] == 0
        await loader.send("clicks", b"ada", b"{}")
        assert loader.sent == {"items": 1, "clicks": 1}
    assert loader.sent == {"items": 1, "clicks": 2}


async def test_what_an_error_leaves_unsent_is_not_sent(settings: Settings):
    async def break_off() -> None:
        async with Loader(settings) as loader:
            await loader.send("clicks", b"ada", b"{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_off()
    assert await asyncio.to_thread(records, settings, "clicks") == []


def test_a_deleted_item_becomes_a_tombstone(settings: Settings, tmp_path: Path):
    deletion = b'{"type":"item","item_id":"tent","deleted":true}\n'
    replay.run(settings, files=[write(tmp_path / "items.jsonl", ITEM, deletion)])
    assert [record.value is None for record in records(settings, "items")] == [False, True]


def test_a_line_larger_than_a_batch_is_sent(settings: Settings, tmp_path: Path):
    replay.run(settings, files=[write(tmp_path / "events.jsonl", click(1), click(2, note="x" * 900_000), click(3))])
    assert [len(record.value) > 900_000 for record in records(settings, "clicks")] == [False, True, False]


def test_bad_lines_are_named_by_number_and_skipped(settings: Settings, tmp_path: Path, capsys):
    path = write(tmp_path / "events.jsonl", click(1), b"oops\n", b'{"type":"sneeze"}\n', click(2))
    summary = replay.run(settings, files=[path])
    assert (summary.lines, summary.skipped, summary.sent) == (4, 2, {"clicks": 2})
    said = capsys.readouterr()
    assert "events.jsonl, line 2 skipped: malformed JSON" in said.err
    assert "events.jsonl, line 3 skipped: unknown type 'sneeze'" in said.err
    assert said.out == ""


def test_of_very_many_bad_lines_the_first_are_named_and_the_rest_counted(settings: Settings, tmp_path: Path, capsys):
    summary = replay.run(settings, files=[write(tmp_path / "events.jsonl", b"oops\n" * 80)])
    assert summary.skipped == 80
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 51
    assert said[-1] == "30 more lines skipped"


def test_shift_to_now_makes_the_newest_event_of_all_files_the_present(settings: Settings, tmp_path: Path):
    files = [
        write(tmp_path / "a.jsonl", click(1, ts=5000), click(2, ts=1000)),
        write(tmp_path / "b.jsonl.gz", click(3, ts=2000), b'{"type":"click","user_id":"ada","ts":"noon"}\n'),
    ]
    before = time.time_ns() // 1_000_000
    replay.run(settings, files=files, shift_to_now=True)
    after = time.time_ns() // 1_000_000
    newest, *others, unreadable = [json.loads(record.value)["ts"] for record in records(settings, "clicks")]
    assert before <= newest <= after
    assert [newest - ts for ts in others] == [4000, 3000]
    assert unreadable == "noon"


def test_old_events_keep_their_time_without_a_shift_and_get_records_of_now(settings: Settings, tmp_path: Path):
    before = time.time_ns() // 1_000_000
    replay.run(settings, files=[write(tmp_path / "events.jsonl", click(1, ts=1000))])
    (record,) = records(settings, "clicks")
    assert json.loads(record.value)["ts"] == 1000
    assert record.timestamp >= before


def test_a_pace_lets_events_go_in_handfuls_at_its_rate():
    pace, now_s = Pace(100), 50.0
    for _ in range(1000):
        now_s += pace.wait_s(now_s)
    assert now_s == pytest.approx(50 + 10, abs=0.05)


def test_a_pace_does_not_wait_when_it_is_late():
    pace = Pace(10)
    assert pace.wait_s(0.0) == 0.0
    assert pace.wait_s(7.0) == 0.0


def test_no_rate_is_no_limit():
    pace = Pace(None)
    assert {pace.wait_s(0.0) for _ in range(1000)} == {0.0}


def test_a_replay_at_a_rate_sends_everything(settings: Settings, tmp_path: Path):
    lines = [click(number) for number in range(200)]
    summary = replay.run(settings, files=[write(tmp_path / "events.jsonl", ITEM, *lines)], rate=400)
    assert summary.sent == {"items": 1, "clicks": 200}


@pytest.mark.parametrize("rate", [0, -5])
def test_a_rate_that_cannot_be_is_refused(tmp_path: Path, rate: float):
    with pytest.raises(StreamerError, match="above 0"):
        replay.run(Settings(), files=[write(tmp_path / "events.jsonl", click(1))], rate=rate)


def test_a_missing_file_is_an_error_before_anything_is_sent(settings: Settings, tmp_path: Path):
    with pytest.raises(EventFileError, match=r"nowhere\.jsonl"):
        replay.run(settings, files=[write(tmp_path / "events.jsonl", click(1)), tmp_path / "nowhere.jsonl"])
    assert records(settings, "clicks") == []


def test_missing_topics_are_named_with_the_command_that_makes_them(kafka: EmbeddedKafka, prefix: str, tmp_path: Path):
    bare = Settings(brokers=kafka.brokers, topic_prefix=prefix)
    with pytest.raises(TopicsError, match=rf"{prefix}clicks.*streamer topics create"):
        replay.run(bare, files=[write(tmp_path / "events.jsonl", click(1))])


def test_no_broker_is_an_error_that_says_where_we_looked(tmp_path: Path):
    nowhere = Settings(brokers="127.0.0.1:1", broker_wait_ms=1)
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        replay.run(nowhere, files=[write(tmp_path / "events.jsonl", click(1))])


def test_simulated_people_live_in_kafka_in_real_time(settings: Settings, tmp_path: Path):
    truth = tmp_path / "truth.jsonl"
    summary = simulate.run(settings, users=30, items=20, rate=200, seed=3, seconds=1, truth_file=truth)
    assert len(records(settings, "items")) == summary.sent["items"] == 20
    events = records(settings, "clicks") + records(settings, "purchases")
    assert len(events) == summary.sent["clicks"] + summary.sent.get("purchases", 0) > 50
    known = {json.loads(line)["user_id"] for line in truth.read_bytes().splitlines()}
    assert {record.key.decode() for record in events} <= known
    assert all(json.loads(record.value)["ts"] <= record.timestamp for record in events)
