"""Bad input goes to `rejected` as it came, with its reason, and everything else goes on."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition

from streamer.engine.topics import REJECTED_MAX_BYTES
from streamer.events import NAME_CHARS, Click, Item, Purchase
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Record, counted, deployed
from tests.worker_process import WorkerProcess

DAY_MS = 86_400_000
NOW = time.time_ns() // 1_000_000
BROKER_LIMIT = 1_048_588  # message.max.bytes, a batch with its header
CODECS = ("gzip", "snappy", "lz4", "zstd")
CLICK: dict[str, Any] = {"event_id": "b", "user_id": "bob", "item_id": "mug", "ts": NOW}
PURCHASE = CLICK | {"price": 1, "currency": "EUR"}
ITEM = {"item_id": "mug", "title": "Mug", "tags": ["mug"]}


def click(**changes: Any) -> bytes:
    return json.dumps(CLICK | changes).encode()


def purchase(**changes: Any) -> bytes:
    return json.dumps(PURCHASE | changes).encode()


def item(**changes: Any) -> bytes:
    return json.dumps(ITEM | changes).encode()


def without(event: dict[str, Any], field: str) -> bytes:
    return json.dumps({name: value for name, value in event.items() if name != field}).encode()


def padded(size: int) -> bytes:
    """A click that is good but for its size, and does not compress."""
    bare = click(session_id="")
    return click(session_id=random.Random(1).randbytes(size).hex()[: size - len(bare)])


class Bad(NamedTuple):
    """A record, and the reason for which it has to be rejected."""

    reason: str
    record: Record


def bad_click(reason: str, value: bytes | None, key: bytes | None = b"bob", **more: Any) -> Bad:
    return Bad(reason, Record("clicks", key, value, **more))


BAD = {
    "no JSON": bad_click("malformed_json", b"{oops"),
    "an empty value": bad_click("malformed_json", b""),
    "null as a value": bad_click("malformed_json", None),
    "bytes that are no UTF-8": bad_click("malformed_json", b'{"user_id":"\xff"}'),
    "a nest too deep": bad_click("malformed_json", b"[" * 5000),
    "two objects": bad_click("malformed_json", click() + click()),
    "broken JSON behind a wrong field": bad_click("malformed_json", b'{"event_id":1,"user_id":"bob",'),
    "no item_id": bad_click("missing_field", without(CLICK, "item_id")),
    "no price": Bad("missing_field", Record("purchases", b"bob", without(PURCHASE, "price"))),
    "no title": Bad("missing_field", Record("items", b"mug", without(ITEM, "title"))),
    "a list": bad_click("wrong_type", b"[]"),
    "a number as id": bad_click("wrong_type", click(event_id=7)),
    "a time with a fraction": bad_click("wrong_type", click(ts=NOW + 0.5)),
    "tags that are a text": Bad("wrong_type", Record("items", b"mug", item(tags="mug"))),
    "an empty id": bad_click("out_of_range", click(event_id="")),
    "an id too long for a profile": bad_click("out_of_range", click(item_id="x" * 257)),
    "a tag too long for a profile": Bad("out_of_range", Record("items", b"mug", item(tags=["x" * 257]))),
    "a time before 1970": bad_click("out_of_range", click(ts=-1)),
    "a time too large to keep": bad_click("from_the_future", click(ts=2**60)),
    "a negative price": Bad("out_of_range", Record("purchases", b"bob", purchase(price=-1))),
    "nothing bought": Bad("out_of_range", Record("purchases", b"bob", purchase(quantity=0))),
    "a currency of many letters": Bad(
        "out_of_range",
        Record("purchases", b"bob", purchase(currency="X").replace(b'"X"', b'"%b"' % (b"\xc2\x80" * 30_000))),
    ),
    "a currency that is none": Bad("out_of_range", Record("purchases", b"bob", purchase(currency="eur"))),
    "another user's key": bad_click("key_mismatch", click(), key=b"eve"),
    "no key": bad_click("key_mismatch", click(), key=None),
    "a key that is no UTF-8": bad_click("key_mismatch", click(), key=b"\xff"),
    "another item's key": Bad("key_mismatch", Record("items", b"cup", item())),
    "a deletion with an empty key": Bad("key_mismatch", Record("items", b"", None)),
    "a deletion with a key too long to keep": Bad("key_mismatch", Record("items", b"x" * (NAME_CHARS + 1), None)),
    "a record at the broker's limit": bad_click("too_large", padded(BROKER_LIMIT - 200)),
    "just over our limit": bad_click("too_large", padded(65_537)),
    "headers of its own": bad_click(
        "wrong_type", b"7", headers=(("trace", b"\x00\xff"), ("reason", b"mine"), ("trace", b"again"))
    ),
    "from the future": bad_click("from_the_future", click(ts=NOW + 400_000), timestamp=NOW),
    "too old": bad_click("too_old", click(ts=NOW - 91 * DAY_MS)),
}
LARGEST = 2 * BROKER_LIMIT  # what the client that sends them lets through
BIG = {"compression_type": "gzip", "max_request_size": 64 << 20, "max_batch_size": 32 << 20}
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-"


class Bin:
    """What a worker did with all bad records at once, good ones before, between and behind them."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.worker: WorkerProcess = deployment.worker()
        records: list[Record | Click | Item] = [Item("mug", "Mug", ("mug",)), self.good_click(0)]
        for n, bad in enumerate(BAD.values(), start=1):
            records += [bad.record, self.good_click(n)]
        places = deployment.send(records, max_request_size=LARGEST)
        self.place = dict(zip(BAD, places[2::2], strict=True))
        self.sent = len(records)
        self.good = len(BAD) + 1
        self.worker.wait_ready()
        deployment.wait_drained()

    def good_click(self, n: int) -> Click:
        return Click(f"good-{n}", "bob", "mug", NOW + n)

    def find(self, topic: str, place: tuple[int, int]) -> Any:
        """The record in `rejected` that came of the one at a place of a topic."""
        partition, offset = place
        name = self.deployment.settings.topic(topic).encode()
        origin = {"source_topic": name, "source_partition": b"%d" % partition, "source_offset": b"%d" % offset}
        records = self.deployment.read(self.deployment.settings.topic("rejected"))
        [found] = [each for each in records if origin.items() <= dict(each.headers).items()]
        return found


@pytest.fixture(scope="module")
def rejected(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bin]:
    with deployed(kafka.brokers, tmp_path_factory.mktemp("bad"), publish_within_ms=1000) as deployment:
        yield Bin(deployment)


@pytest.mark.parametrize("name", BAD)
def test_bad_record_is_rejected_for_its_reason_as_it_came(rejected: Bin, name: str) -> None:
    bad = BAD[name]
    found = rejected.find(bad.record.topic, rejected.place[name])
    own = len(bad.record.headers)
    headers = dict(found.headers[own:])
    assert (found.key, found.value) == (bad.record.key, bad.record.value)
    assert tuple(found.headers[:own]) == bad.record.headers
    assert headers["reason"] == bad.reason.encode()
    assert headers["detail"].decode() != ""
    assert [header for header, _ in found.headers[own:]] == [
        "reason",
        "detail",
        "source_topic",
        "source_partition",
        "source_offset",
    ]


def test_every_reason_of_the_contract_was_seen(rejected: Bin) -> None:
    seen = {reason: rejected.worker.metric("streamer_rejected_total", reason=reason) for reason in REASONS}
    assert seen == {reason: sum(bad.reason == reason for bad in BAD.values()) for reason in REASONS}


REASONS = (
    "malformed_json",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "key_mismatch",
    "too_large",
    "from_the_future",
    "too_old",
)


def test_good_events_between_bad_ones_all_count(rejected: Bin) -> None:
    rejected.deployment.check_profiles()
    assert counted(rejected.deployment.latest_of("bob")) == rejected.good


def test_each_record_is_counted_once_in_the_metrics(rejected: Bin) -> None:
    before = outcomes(rejected.worker)
    assert before["applied"] + before["rejected"] == sum(before.values()) == rejected.sent
    rejected.deployment.send([Record("items", b"gone", None), Record("clicks", b"bob", b"{"), rejected.good_click(0)])
    rejected.sent += 3
    rejected.deployment.wait_drained()
    assert outcomes(rejected.worker) - before == Counter(tombstone=1, rejected=1, duplicate=1)


def outcomes(worker: WorkerProcess) -> Counter[str]:
    names = ("applied", "duplicate", "rejected", "tombstone")
    return Counter({name: int(worker.metric("streamer_events_total", outcome=name)) for name in names})


@pytest.mark.parametrize("codec", CODECS)
def test_compressed_records_are_read(rejected: Bin, codec: str) -> None:
    user_id = f"packed-{codec}"
    events = [Click(f"{codec}-{n}", user_id, "mug", NOW + n) for n in range(50)]
    bought = Purchase(f"{codec}-p", user_id, "mug", NOW + 50, price=2, currency="EUR")
    rejected.deployment.send([*events, bought], compression_type=codec)
    rejected.sent += 51
    rejected.deployment.until(lambda: counted(rejected.deployment.latest_of(user_id)) > 0, f"a profile of {user_id}")
    count = partial(rejected.worker.metric, "streamer_events_total")
    rejected.deployment.until(lambda: count() >= rejected.sent, "the purchase behind them, a fetch of its own")
    assert count() == rejected.sent


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [3 << 20, 20 << 20])
def test_record_that_is_huge_when_unpacked_stops_nothing(rejected: Bin, codec: str, size: int) -> None:
    """Brokers limit what is on the wire: of repeats, far more than that fits in, and may not fit into `rejected`."""
    value = click(session_id="a" * size)
    options = {"compression_type": codec, "max_request_size": 2 * size}
    [place] = rejected.deployment.send([Record("clicks", b"bob", value, (("trace", b"7"),))], **options)
    wait_for(rejected.deployment, place)
    rejected.sent += 1
    found = rejected.find("clicks", place)
    headers, fits = dict(found.headers), size < REJECTED_MAX_BYTES
    assert (found.key, found.value, headers["trace"]) == (b"bob", value if fits else None, b"7")
    assert headers["reason"] == b"too_large"
    assert (b"left out here: value (" in headers["detail"]) is not fits


def wait_for(deployment: Deployment, place: tuple[int, int]) -> None:
    """Until a click is behind a checkpoint."""
    source = TopicPartition(deployment.settings.topic("clicks"), place[0])
    deployment.until(lambda: deployment.committed().get(source, 0) > place[1], "it checkpointed")


@pytest.mark.parametrize("header", [("\N{TENT}" * 2_500_000, b""), ("traceparent", PARENT + b"x" * 1_000_000)])
def test_header_that_is_huge_when_unpacked_stops_nothing(rejected: Bin, header: tuple[str, bytes]) -> None:
    [place] = rejected.deployment.send([Record("clicks", b"bob", b"no JSON", (header,))], **BIG)
    wait_for(rejected.deployment, place)
    rejected.sent += 1
    assert dict(rejected.find("clicks", place).headers)["reason"] == b"malformed_json"


def test_trace_of_any_length_stops_nothing(rejected: Bin) -> None:
    event = click(event_id="traced", user_id="zoe")
    rejected.deployment.send([Record("clicks", b"zoe", event, (("traceparent", PARENT + b"x" * 1_000_000),))], **BIG)
    rejected.sent += 1
    rejected.deployment.until(lambda: counted(rejected.deployment.latest_of("zoe")) == 1, "the profile")


def test_longest_names_fit_into_a_profile(rejected: Bin) -> None:
    """Of characters that JSON writes in six bytes each."""
    user_id = "\1" * NAME_CHARS
    names = [f"{n:\1>{NAME_CHARS}}" for n in range(40)]
    events = [Click(name, user_id, name, NOW + n, tags=(name, name[::-1])) for n, name in enumerate(names)]
    rejected.deployment.send(events)
    rejected.sent += 40
    rejected.deployment.until(lambda: counted(rejected.deployment.latest_of(user_id)) == 40, "the whole profile")
    profile = rejected.deployment.latest_of(user_id)
    assert {each["item_id"] for each in profile["recent_items"]} == set(names)


def test_worker_never_left_for_bad_input(rejected: Bin) -> None:
    assert rejected.worker.stop() == 0
    assert "Traceback" not in rejected.worker.said
    assert rejected.deployment.check_stores() == rejected.deployment.settings.partitions
