"""`EventProducer` on a real broker: what is sent arrives where it belongs, what would be rejected is not sent."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2
from structlog.testing import capture_logs

from streamer.client import (
    Click,
    ClosedError,
    DeliveryError,
    EventProducer,
    InvalidEventError,
    Item,
    ProfileSubscriber,
    Purchase,
)
from streamer.client.wire import outgoing
from streamer.engine.kafka_clients import admin_client
from streamer.engine.topics import create_topics
from streamer.errors import BrokerError, TopicsError
from streamer.events import KIND_OF_TOPIC, UserEvent
from streamer.pipeline.decode import Limits, decode_events, decode_items
from streamer.pipeline.records import Record, Records
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from tests.client_world import ROOT, brief, printed_example, records, write
from tests.test_kafka_clients import free_ports

CLICK = Click(event_id="c-1", user_id="ada", item_id="tent-7", ts=1_760_000_000_000, tags=("tent",))
PURCHASE = Purchase(
    event_id="p-1", user_id="Zoë", item_id="tent-7", ts=1_760_000_000_000, price=99.5, currency="EUR", quantity=2
)
ITEM = Item(item_id="tent-7", title="Tent", tags=("tent", "camping"))
NOW_MS = 1_770_000_000_000
DEFAULTS = load()
LIMITS = Limits(DEFAULTS.max_event_bytes, DEFAULTS.future_ms, DEFAULTS.too_old_ms)

replace = msgspec.structs.replace


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=3)
    create_topics(settings)
    return settings


@pytest.fixture
def producer(settings: Settings) -> Iterator[EventProducer]:
    with EventProducer(settings) as producer:
        yield producer


# What arrives


def test_every_kind_of_event_arrives_as_the_worker_takes_it(settings: Settings, producer: EventProducer) -> None:
    for event in (CLICK, PURCHASE, ITEM):
        producer.send(event)
    producer.flush()
    for topic, sent in (("clicks", CLICK), ("purchases", PURCHASE)):
        [record] = records(settings, topic, 1)
        assert msgspec.json.decode(record.value, type=type(sent)) == sent
        assert decode_events(KIND_OF_TOPIC[topic], Records.of([record]), LIMITS, 0).rejected == []
    assert decode_items(records(settings, "items", 1), LIMITS) == ([("tent-7", ITEM)], [])


def test_a_forgotten_item_is_a_null_value_under_its_key(settings: Settings, producer: EventProducer) -> None:
    producer.send(ITEM)
    producer.forget_item("tent-7")
    producer.flush()
    assert decode_items(records(settings, "items", 2), LIMITS) == ([("tent-7", ITEM), ("tent-7", None)], [])


def test_all_events_of_a_user_lie_in_the_partition_that_murmur2_names(
    settings: Settings, producer: EventProducer
) -> None:
    for number in range(50):
        producer.send(replace(CLICK, event_id=f"c-{number}", user_id=f"usér-{number % 7}"))
        producer.send(replace(PURCHASE, event_id=f"p-{number}", user_id=f"usér-{number % 7}"))
    producer.flush()
    found = records(settings, "clicks", 50) + records(settings, "purchases", 50)
    assert {record.partition for record in found} == {0, 1, 2}
    for record in found:
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 3


def test_leaving_the_block_waits_for_every_acknowledgement(settings: Settings) -> None:
    with EventProducer(settings) as producer:
        for number in range(3000):
            producer.send(replace(CLICK, event_id=f"c-{number}"))
    arrived = [msgspec.json.decode(record.value)["event_id"] for record in records(settings, "clicks", 3000)]
    assert arrived == [f"c-{number}" for number in range(3000)]


def test_threads_may_share_a_producer(settings: Settings, producer: EventProducer) -> None:
    def send(thread: int) -> None:
        for number in range(200):
            producer.send(replace(CLICK, event_id=f"{thread}-{number}"))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush()
    assert len({record.value for record in records(settings, "clicks", 800)}) == 800


# What is refused before it is sent


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (replace(CLICK, user_id=""), "user_id"),
        (replace(CLICK, ts="1760000000000"), r"Expected `int`, got `str` - at `\$.ts`"),
        (replace(CLICK, ts=2**43 + 1), "ts"),
        (replace(CLICK, dwell_ms=-1), "dwell_ms"),
        (replace(CLICK, tags=("tent", 7)), "tags"),
        (replace(CLICK, tags=({1, 2},)), "tags"),
        (replace(CLICK, session_id=object()), "unsupported"),
        (replace(CLICK, user_id="\ud800"), "surrogates"),
        (replace(CLICK, ts=NOW_MS + DEFAULTS.future_ms + 1), "300001 ms ahead of this machine's clock"),
        (replace(CLICK, session_id="x" * 65_536), r"65\d{3} bytes, the limit is 65536 \(STREAMER_MAX_EVENT_BYTES\)"),
        (replace(PURCHASE, price=-1), "price"),
        (replace(PURCHASE, price=float("nan")), "price"),
        (replace(PURCHASE, price=float("inf")), "price"),
        (replace(PURCHASE, quantity=0), "quantity"),
        (replace(PURCHASE, currency="eur"), "currency 'eur' is not an ISO 4217 code"),
        (replace(PURCHASE, currency="EURO"), "currency"),
        (replace(ITEM, item_id=""), "item_id"),
        (replace(ITEM, title=None), "title"),
        (replace(ITEM, currency="EU1"), "currency"),
        ({"event_id": "c-1"}, "dict is not an event: send one of Click, Purchase, Item"),
    ],
)
def test_an_invalid_event_is_refused_with_the_field_and_the_limit(event: Any, said: str) -> None:
    with pytest.raises(InvalidEventError, match=said):
        outgoing(event, DEFAULTS, NOW_MS)


@pytest.mark.parametrize("item_id", ["", None, 7, "\ud800", "x" * 257])
def test_only_an_id_can_be_forgotten(producer: EventProducer, item_id: Any) -> None:
    with pytest.raises(InvalidEventError, match="has to be a text of 1 to 256 characters"):
        producer.forget_item(item_id)


def test_of_an_invalid_event_nothing_is_sent(settings: Settings, producer: EventProducer) -> None:
    with pytest.raises(InvalidEventError, match="Click 'c-1' would be rejected"):
        producer.send(replace(CLICK, item_id=""))
    producer.send(replace(CLICK, event_id="c-2"))
    producer.flush()
    (record,) = records(settings, "clicks", 1)
    assert (record.offset, msgspec.json.decode(record.value)["event_id"]) == (0, "c-2")


TEXTS = st.sampled_from(["", "ada", "Zoë", "\x00", "\ud800", "EUR", "EURO", "eür"]) | st.none() | st.integers(0, 3)
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2.5, 10**9, 10**12, 10**13, 2**43, 2**43 + 1, float("nan"), float("inf"), "1", None]
)
TIMES = NUMBERS | st.integers(NOW_MS - 5, NOW_MS + 2 * DEFAULTS.future_ms)
TAGS = st.sampled_from([(), ("a",), ["a"], (1,), None, "a", ("x" * 70_000,)])


@st.composite
def odd_events(draw: st.DrawFn) -> UserEvent:
    """An event in which some fields are not as they have to be."""
    event: UserEvent = draw(st.sampled_from([CLICK, PURCHASE]))
    texts = ("event_id", "user_id", "item_id", "session_id", "currency", "order_id")
    fields = {
        **dict.fromkeys(texts, TEXTS),
        **dict.fromkeys(("dwell_ms", "price", "quantity"), NUMBERS),
        "ts": TIMES,
        "tags": TAGS,
    }
    for name in draw(st.lists(st.sampled_from(event.__struct_fields__), max_size=2)):
        event = replace(event, **{name: draw(fields[name])})
    return event


@given(odd_events())
def test_the_producer_sends_just_what_the_pipeline_takes(event: UserEvent) -> None:
    try:
        key, value = str(event.user_id).encode(), msgspec.json.encode(event)
        kind = KIND_OF_TOPIC["clicks" if isinstance(event, Click) else "purchases"]
        taken = not decode_events(kind, Records.of([Record(key, value, NOW_MS, offset=0)]), LIMITS, 0).rejected
    except (ValueError, TypeError):  # there is no such record
        taken = False
    try:
        outgoing(event, DEFAULTS, NOW_MS)
    except InvalidEventError:
        assert not taken
    else:
        assert taken


# What is not delivered


@pytest.fixture
def small_clicks(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Topics of which `clicks` takes small records only."""
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=1)
    with admin_client(settings) as admin:
        small = {"num_partitions": 1, "configs": {"max.message.bytes": "300"}}
        admin.create_topics({settings.topic("clicks"): small}, wait_for_metadata=True)
    create_topics(settings)
    return settings


def test_what_the_broker_refuses_is_raised_with_the_events(small_clicks: Settings) -> None:
    large = replace(CLICK, event_id="c-2", session_id="x" * 300)
    producer = EventProducer(small_clicks)
    producer.send(CLICK)
    producer.flush()
    producer.send(large)
    with pytest.raises(DeliveryError, match="1 events are not known to be in Kafka") as raised:
        producer.flush()
    assert raised.value.events == (large,)
    producer.send(large)
    with pytest.raises(DeliveryError):
        producer.close()
    with pytest.raises(ClosedError):
        producer.send(CLICK)


def test_a_failure_in_the_block_is_not_hidden_by_what_was_not_delivered(small_clicks: Settings) -> None:
    with capture_logs() as logs, pytest.raises(ZeroDivisionError), EventProducer(small_clicks) as producer:
        fail_after(producer, replace(CLICK, session_id="x" * 300))
    assert [(line["event"], line["events"]) for line in logs] == [("events were not delivered", 1)]


def fail_after(producer: EventProducer, event: Click) -> None:
    producer.send(event)
    raise ZeroDivisionError


def test_events_outlive_a_broker_that_is_away_for_a_while(tmp_path: Path) -> None:
    """In a process of its own: kafka-python leaves the sockets of failed attempts to the garbage collector."""
    code = "import pathlib, sys; import tests.test_client_producer as t; t.outlive_an_outage(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)


def outlive_an_outage(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "own") as broker:
        settings = load(brokers=broker.brokers, partitions=1)
        create_topics(settings)
        with EventProducer(settings, delivery_timeout_ms=2000) as producer, ProfileSubscriber(settings) as subscriber:
            write(settings, ("ada", 1))
            assert brief(next(subscriber)) == ("ada", 1)
            broker.stop()
            producer.send(CLICK)
            with pytest.raises(DeliveryError) as raised:
                producer.flush()
            assert raised.value.events == (CLICK,)
            broker.start()
            deliver(producer, raised.value.events)
            assert [msgspec.json.decode(r.value, type=Click) for r in records(settings, "clicks", 1)] == [CLICK]
            write(settings, ("ada", 2))
            assert brief(next(subscriber)) == ("ada", 2)


def deliver(producer: EventProducer, events: Sequence[Any]) -> None:
    """As a service would: until Kafka has them."""
    while events:
        try:
            for event in events:
                producer.send(event)
            producer.flush()
            return
        except DeliveryError as exc:
            events = exc.events


def test_missing_topics_are_named_all_at_once(kafka: EmbeddedKafka, prefix: str) -> None:
    with pytest.raises(TopicsError) as raised:
        EventProducer(load(brokers=kafka.brokers, topic_prefix=prefix))
    assert re.findall(rf"{prefix}(\w+): missing", str(raised.value)) == ["clicks", "purchases", "items"]


def test_a_broker_that_is_not_there_is_named() -> None:
    (port,) = free_ports(1)
    with pytest.raises(BrokerError, match=f"no broker at 127.0.0.1:{port}"):
        EventProducer(load(brokers=f"127.0.0.1:{port}"))


# Examples


def test_the_printed_producer_runs_and_the_worker_takes_what_it_sends(settings: Settings) -> None:
    environment = os.environ | {"STREAMER_BROKERS": settings.brokers, "STREAMER_TOPIC_PREFIX": settings.topic_prefix}
    before_ms = time.time_ns() // 1_000_000
    subprocess.run([sys.executable, "-c", printed_example(EventProducer)], env=environment, check=True)
    [record] = records(settings, "clicks", 1)
    decoded = decode_events(KIND_OF_TOPIC["clicks"], Records.of([record]), LIMITS, 0)
    assert (record.key, decoded.item_id(0)) == (b"ada", "tent-7")
    assert decoded.ts[0] >= before_ms


def test_the_printed_producer_has_about_ten_lines() -> None:
    assert len(re.findall(r"\S.*", printed_example(EventProducer))) <= 10
