"""`streamer rejected` on a real broker, with a worker whose rules are mended in between."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from streamer.cli import main
from streamer.engine.topics import create_topics
from streamer.errors import StreamerError
from streamer.events import Click, Item
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.rejected import Place, Rejection
from streamer.tools.rejected_replay import Sender, transactional
from streamer.upstream import partition_of
from tests.deployment import Deployment, Record, counted, deployed

NOW = time.time_ns() // 1_000_000
FIRST_RULE = {"max_event_bytes": 300}  # which is mended to the default
ZIPPED_BYTES = 9 << 20  # a few KiB on the wire, more than `rejected` takes when unpacked


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def large_click(event_id: str, user_id: str, **record: Any) -> Record:
    """A good click of over 300 bytes."""
    noise = random.Random(event_id).randbytes(100).hex()
    value = {"event_id": event_id, "user_id": user_id, "item_id": "mug", "ts": NOW, "session_id": noise, "pad": noise}
    return Record("clicks", user_id.encode(), json.dumps(value).encode(), **record)


def large_item(item_id: str, title: str) -> Record:
    value = {"item_id": item_id, "title": title, "tags": [f"{item_id}-tag"], "pad": "x" * 300}
    return Record("items", item_id.encode(), json.dumps(value).encode())


BAD = [
    large_click("b1", "bob", headers=(("trace", b"7"), ("reason", b"mine"))),
    large_click("b2", "bob"),
    large_click("c1", "carol"),
    large_item("mug", "An old mug"),
    large_item("cup", "A cup"),
    Record("clicks", b"eve", b"{oops"),
]
GOOD = [Item("mug", "A new mug", ("crockery",)), Click("b0", "bob", "mug", NOW)]


@pytest.fixture(scope="module")
def deployment(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A worker has rejected BAD and a huge record, and has stopped."""
    with deployed(kafka.brokers, tmp_path_factory.mktemp("rejected"), publish_within_ms=500) as own:
        own.send(BAD)
        own.send([Record("clicks", b"dave", bytes(ZIPPED_BYTES))], compression_type="gzip", max_request_size=16 << 20)
        own.send(GOOD)
        worker = own.worker(**FIRST_RULE).wait_ready()
        own.wait_drained()
        assert worker.stop() == 0
        yield own


@pytest.fixture
def rejected(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run `streamer rejected …` on the deployment."""
    settings = deployment.settings
    where = ("--brokers", settings.brokers, "--topic-prefix", settings.topic_prefix, "--partitions", "3")

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["rejected", *arguments, *where])
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


Run = Callable[..., Ended]


def sources(deployment: Deployment) -> int:
    return sum(len(deployment.read(deployment.settings.topic(name))) for name in ("clicks", "purchases", "items"))


# ---- looking


def test_list_says_what_was_rejected_and_why(rejected: Run) -> None:
    ended = rejected("list")
    assert ended.code == 0
    assert "7 rejected: 4 too_large in" in ended.out
    assert "limit is 300" in ended.out


def test_list_prints_every_record_with_its_value_for_programs(rejected: Run) -> None:
    found = [json.loads(line) for line in rejected("list", "--json", "--key", "carol").out.splitlines()]
    assert [(each["key"], each["reason"], each["replayed"]) for each in found] == [("carol", "too_large", False)]
    assert json.loads(found[0]["value"])["event_id"] == "c1"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--reason", "malformed_json"), 1),
        (("--reason", "malformed_json", "--reason", "too_large"), 7),
        (("--topic", "items"), 2),
        (("--key", "bob"), 2),
        (("--limit", "3"), 3),
        (("--since", str(NOW + 10**9)), 0),
        (("--until", str(NOW - 10**9)), 0),
        (("--since", str(NOW - 10**9), "--until", str(NOW + 10**9)), 7),
    ],
)
def test_filters_choose_what_is_listed(rejected: Run, options: tuple[str, ...], count: int) -> None:
    assert len(rejected("list", "--json", *options).out.splitlines()) == count


@pytest.mark.parametrize("options", [("--reason", "too_big"), ("--topic", "click"), ("--since", "yesterday")])
def test_a_filter_that_cannot_be_is_refused(rejected: Run, options: tuple[str, ...]) -> None:
    ended = rejected("list", *options)
    assert ended.code == 2
    assert options[1] in ended.err


def test_a_dry_run_says_what_would_be_done_and_why_not_and_changes_nothing(
    deployment: Deployment, rejected: Run
) -> None:
    before = sources(deployment)
    ended = rejected("replay", "--dry-run")
    assert ended.code == 1
    assert "7 rejected records: 4 to put back, 0 were put back before, 3 stay" in ended.out
    assert "would be rejected again: malformed_json" in ended.err
    assert "its value did not fit into" in ended.err
    assert "the item was written again since" in ended.err
    assert ended.err.count("stays:") == 3
    assert sources(deployment) == before


def test_what_these_settings_reject_again_stays(rejected: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_MAX_EVENT_BYTES", "300")
    ended = rejected("replay", "--dry-run", "--json", "--key", "bob")
    assert ended.code == 1
    assert json.loads(ended.out)["replayed"] == 0


def test_nobody_to_ask_means_that_nothing_is_done(deployment: Deployment, rejected: Run) -> None:
    before = sources(deployment)
    ended = rejected("replay", "--reason", "too_large")
    assert ended.code == 2
    assert "--yes" in ended.err
    assert sources(deployment) == before


# ---- putting back


def test_a_replay_that_was_overtaken_by_another_sends_nothing(deployment: Deployment) -> None:
    async def overtaken(settings: Settings) -> None:
        async with transactional(settings) as first:
            sender = Sender(settings, first)
            source, place = Place(settings.topic("clicks"), 0, 0), Place(settings.topic("rejected"), 0, 0)
            await sender.put(Rejection(place, NOW, "too_large", "", source, b"zoe", b"{}", ()))
            async with transactional(settings):
                await sender.flush()

    before = sources(deployment)
    with pytest.raises(StreamerError, match="another replay was started"):
        asyncio.run(overtaken(deployment.settings))
    assert sources(deployment) == before


def test_after_a_fix_each_record_is_put_back_and_counts_once(deployment: Deployment, rejected: Run) -> None:
    first = rejected("replay", "--yes", "--json", "--key", "bob", "--limit", "1")
    assert (first.code, json.loads(first.out)["replayed"]) == (0, 1)
    again = json.loads(rejected("replay", "--yes", "--json", "--reason", "too_large").out)
    assert (again["replayed"], again["before"], again["done"]) == (3, 1, True)
    last = rejected("replay", "--yes", "--key", "bob")
    assert last.code == 0
    assert "0 to put back, 2 were put back before" in last.out
    check_came_back(deployment)

    worker = deployment.worker().wait_ready()
    deployment.until(lambda: counted(deployment.latest_of("bob")) >= 3, "bob's clicks")
    deployment.until(lambda: counted(deployment.latest_of("carol")) >= 1, "carol's click")
    deployment.wait_drained()
    assert worker.stop() == 0
    assert counted(deployment.latest_of("bob")) == 3
    assert counted(deployment.latest_of("carol")) == 1
    found = [json.loads(line) for line in rejected("list", "--json", "--key", "bob").out.splitlines()]
    assert [each["replayed"] for each in found] == [True, True]


def check_came_back(deployment: Deployment) -> None:
    """As it was sent, to the partition of its key, and saying where it was."""
    settings = deployment.settings
    records = [each for each in deployment.read(settings.topic("clicks")) if "replayed_from" in dict(each.headers)]
    assert sorted(json.loads(each.value)["event_id"] for each in records) == ["b1", "b2", "c1"]
    for each in records:
        assert each.partition == partition_of(each.key, settings.partitions)
        assert each.timestamp >= NOW
    [first] = [each for each in records if json.loads(each.value)["event_id"] == "b1"]
    *own, (_, place), (_, at) = first.headers
    assert (first.key, first.value, tuple(own)) == (BAD[0].key, BAD[0].value, BAD[0].headers)
    assert place.decode().startswith(f"{settings.topic('rejected')}/{first.partition}/")
    assert int(at) >= NOW


def test_where_nothing_was_rejected_it_says_so(
    kafka: EmbeddedKafka, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create_topics(load(brokers=kafka.brokers, topic_prefix=prefix))
    with pytest.raises(SystemExit) as ended:
        main(["rejected", "list", "--brokers", kafka.brokers, "--topic-prefix", prefix])
    assert not ended.value.code
    assert "nothing that was asked for was rejected" in capsys.readouterr().out


def test_without_the_topics_it_exits_4(kafka: EmbeddedKafka, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rejected", "list", "--brokers", kafka.brokers, "--topic-prefix", prefix])
    assert ended.value.code == 4
    assert "streamer topics create" in capsys.readouterr().err
