"""`ProfileSubscriber` on a real broker: what is handed over, once, from where, and where it goes on."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.admin import MemberToRemove
from kafka.protocol.consumer import OffsetSpec
from kafka.record import util as record_util
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from streamer.client import ClosedError, CommitError, EventProducer, ProfileSubscriber, Progress, Update
from streamer.client.signals import signals_call
from streamer.client.snapshot import Latest
from streamer.client.updates import Record, Versions, decode_profile
from streamer.engine.kafka_clients import admin_client
from streamer.engine.topics import create_topics
from streamer.errors import BrokerError, SettingsError, TopicsError
from streamer.profile import Profile
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from tests.client_world import (
    PROFILE,
    ROOT,
    brief,
    printed_example,
    profile_value,
    profile_writer,
    put,
    take,
    write,
)
from tests.test_kafka_clients import free_ports


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=3)
    create_topics(settings)
    return settings


@pytest.fixture
def group(prefix: str) -> str:
    return f"{prefix}service"


@pytest.fixture
def follow(settings: Settings) -> Iterator[Callable[..., ProfileSubscriber]]:
    """Makes subscribers that are closed at the end of the test."""
    made: list[ProfileSubscriber] = []

    def subscriber(**options: object) -> ProfileSubscriber:
        made.append(ProfileSubscriber(settings, **options))  # type: ignore[arg-type]
        return made[-1]

    yield subscriber
    for each in made:
        each.close()


Follow = Callable[..., ProfileSubscriber]


# What is handed over


def test_a_profile_comes_as_it_was_published(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 3))
    update = next(follow())
    assert update.profile == msgspec.convert(PROFILE | {"user_id": "ada"}, Profile)
    assert (update.user_id, update.offset) == ("ada", 0)
    assert update.at_ms > 0


def test_a_null_value_is_an_erasure(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 1), ("ada", None))
    assert take(follow(), 2) == [("ada", 1), ("ada", None)]


def test_a_repeated_or_older_version_is_dropped(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 2), ("ada", 2), ("ada", 1), ("ada", 3))
    subscriber = follow()
    assert take(subscriber, 2) == [("ada", 2), ("ada", 3)]
    assert subscriber.counters.repeated == 2


def test_after_an_erasure_versions_begin_anew(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 7), ("ada", None), ("ada", 1))
    assert take(follow(), 3) == [("ada", 7), ("ada", None), ("ada", 1)]


def test_profiles_of_an_aborted_transaction_are_not_handed_over(settings: Settings, follow: Follow) -> None:
    with profile_writer(settings, transactional_id=settings.topic_prefix + "crashed") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        put(producer, settings, [("ada", 1)])
        producer.abort_transaction()
    write(settings, ("ada", 2))
    assert take(follow(), 1) == [("ada", 2)]


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"ada", b"{"), (b"ada", b"[]"), (b"ada", b"{}"), (b"\xff", b"{}"), (b"", None), (b"ada", b'{"changed":[1]}')],
)
def test_what_is_not_a_profile_is_skipped_counted_and_named(
    settings: Settings, follow: Follow, key: bytes, value: bytes | None
) -> None:
    with profile_writer(settings) as producer:
        producer.send(settings.topic("profiles"), key=key, value=value, partition=0)
        producer.send(settings.topic("profiles"), key=b"eve", value=profile_value("eve", 1), partition=0)
        producer.flush()
    subscriber = follow()
    with capture_logs() as logs:
        assert take(subscriber, 1) == [("eve", 1)]
    assert subscriber.counters.undecodable == 1
    assert [(line["event"], line["offset"]) for line in logs] == [("not a profile, skipped", 0)]


def test_kinds_of_change_of_a_later_version_are_left_out() -> None:
    later = {"what": "segment_entered", "segment": "runners"}
    value = msgspec.json.encode(PROFILE | {"changed": [*PROFILE["changed"], later], "segments": ["runners"]})
    assert decode_profile(value) == msgspec.convert(PROFILE, Profile)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 5)), max_size=60))
def test_no_version_passes_twice_within_what_is_remembered(seen: list[tuple[str, int]]) -> None:
    versions, newest = Versions(limit=6), dict.fromkeys("abcdef", 0)
    for user_id, version in seen:
        assert versions.advance(user_id, version) == (version > newest[user_id])
        newest[user_id] = max(newest[user_id], version)


def test_versions_of_users_long_gone_are_forgotten() -> None:
    versions = Versions(limit=10)
    for number in range(100):
        versions.advance(f"u{number}", 1)
    assert versions.advance("u0", 1)
    assert not versions.advance("u99", 1)


# Where it starts


def test_from_now_only_what_is_published_later_comes(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 1), ("bob", 1), ("eve", 1))
    subscriber = follow(start="now")
    write(settings, ("ada", 2))
    assert take(subscriber, 1) == [("ada", 2)]


def test_a_snapshot_has_every_user_once_and_then_come_changes(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 1), ("bob", 1), ("ada", 2), ("eve", 1), ("eve", None), ("ada", 3))
    subscriber = follow(start="snapshot")
    assert take(subscriber, 3) == [("ada", 3), ("bob", 1), ("eve", None)]
    write(settings, ("bob", 2))
    assert take(subscriber, 1) == [("bob", 2)]


def test_a_snapshot_of_an_empty_topic_goes_on_to_changes(settings: Settings, follow: Follow) -> None:
    seen: list[Progress] = []
    subscriber = follow(start="snapshot", on_snapshot=seen.append)
    threading.Thread(target=write, args=(settings, ("ada", 1))).start()
    assert take(subscriber, 1) == [("ada", 1)]


def test_a_snapshot_says_how_far_it_is(settings: Settings, follow: Follow) -> None:
    write(settings, *((f"user-{number}", 1) for number in range(100)))
    seen: list[Progress] = []
    take(follow(start="snapshot", on_snapshot=seen.append), 100)
    assert [each.read for each in seen] == sorted(each.read for each in seen)
    assert {each.total for each in seen} == {seen[-1].read}
    assert seen[-1].total >= 100


def test_what_is_published_during_a_snapshot_is_not_lost(settings: Settings, follow: Follow) -> None:
    write(settings, *((f"user-{number}", 1) for number in range(30)))
    subscriber = follow(start="snapshot")
    first = take(subscriber, 1)
    write(settings, *((f"user-{number}", 2) for number in range(30)))
    latest = dict(first)
    while set(latest.values()) != {2}:
        user_id, version = brief(next(subscriber))
        assert version is not None
        latest[user_id] = version


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.none() | st.binary(max_size=50)), max_size=50))
def test_a_snapshot_beyond_its_memory_holds_the_same_as_within(puts: list[tuple[bytes, bytes | None]]) -> None:
    given_records = [Record(key, value, 4, offset, 7) for offset, (key, value) in enumerate(puts)]
    expected = sorted({record.key: record for record in given_records}.values(), key=lambda record: record.offset)
    for memory_bytes in (1, 1 << 20):
        with Latest(4, memory_bytes) as latest:
            for record in given_records:
                latest.put(record)
            assert list(latest) == expected


# Where a group goes on


def test_a_group_goes_on_where_it_left(settings: Settings, follow: Follow, group: str) -> None:
    write(settings, ("ada", 1), ("bob", 1), ("eve", 1))
    with follow(group=group) as subscriber:
        assert len(take(subscriber, 3)) == 3
    write(settings, ("ada", 2))
    assert take(follow(group=group), 1) == [("ada", 2)]


def test_an_update_at_which_processing_failed_comes_again(settings: Settings, follow: Follow, group: str) -> None:
    write(settings, ("ada", 1), ("ada", 2), ("ada", 3))

    def handle(update: Update) -> None:
        if brief(update) == ("ada", 2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), follow(group=group) as subscriber:
        subscriber.run(handle)
    assert take(follow(group=group), 2) == [("ada", 2), ("ada", 3)]


def test_what_was_fetched_but_not_handed_over_comes_again(settings: Settings, follow: Follow, group: str) -> None:
    write(settings, ("ada", 1), ("ada", 2), ("ada", 3))
    with follow(group=group) as subscriber:
        next(subscriber)
    assert take(follow(group=group), 2) == [("ada", 2), ("ada", 3)]


def test_without_auto_commit_only_commit_keeps_the_place(settings: Settings, follow: Follow, group: str) -> None:
    write(settings, ("ada", 1), ("ada", 2), ("ada", 3))
    with follow(group=group, auto_commit=False) as subscriber:
        next(subscriber)
        subscriber.commit()
        next(subscriber)
    assert subscriber.counters.commits == 1
    assert take(follow(group=group, auto_commit=False), 2) == [("ada", 2), ("ada", 3)]


def test_at_rest_a_group_has_no_lag(settings: Settings, follow: Follow, group: str) -> None:
    write(settings, *((f"user-{number}", 1) for number in range(20)))
    with follow(group=group) as subscriber:
        take(subscriber, 20)
        assert subscriber.counters.lag_records == 0
    partitions = [TopicPartition(settings.topic("profiles"), number) for number in range(3)]
    with admin_client(settings) as admin:
        places = admin.list_group_offsets(group)[group]
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    assert {each: places[each].offset for each in partitions} == {each: ends[each].offset for each in partitions}


def test_a_group_that_starts_now_keeps_its_place_before_anything_comes(
    settings: Settings, follow: Follow, group: str
) -> None:
    write(settings, ("ada", 1))
    subscriber = follow(group=group, start="now", auto_commit=False)
    subscriber_ends_when_its_place_is_kept(subscriber)
    write(settings, ("ada", 2))
    assert take(follow(group=group, start="now"), 1) == [("ada", 2)]


def subscriber_ends_when_its_place_is_kept(subscriber: ProfileSubscriber) -> None:
    thread = threading.Thread(target=lambda: list(subscriber))
    thread.start()
    while subscriber.counters.commits == 0:
        thread.join(0.01)
    subscriber.stop()
    thread.join()
    subscriber.close()


def test_members_of_a_group_share_the_users_and_lose_none(settings: Settings, follow: Follow, group: str) -> None:
    users = [f"user-{number}" for number in range(60)]
    got: dict[str, list[tuple[str, int | None]]] = {"first": [], "second": []}
    first, second = follow(group=group), follow(group=group)
    write(settings, *((user_id, 1) for user_id in users))
    threads = [
        threading.Thread(target=first.run, args=(lambda update: got["first"].append(brief(update)),)),
        threading.Thread(target=second.run, args=(lambda update: got["second"].append(brief(update)),)),
    ]
    threads[0].start()
    until(lambda: len(got["first"]) == len(users))
    threads[1].start()
    version = 1
    while not got["second"]:  # until the second has joined and has users of its own
        version += 1
        written = {(user_id, version) for user_id in users}
        write(settings, *written)
        until(partial(arrived, got, written))
    first.stop()
    second.stop()
    for thread in threads:
        thread.join()
    assert both(got) == {(user_id, number) for user_id in users for number in range(1, version + 1)}
    for updates in got.values():
        assert len(updates) == len(set(updates))


def arrived(got: dict[str, list[tuple[str, int | None]]], written: set[tuple[str, int]]) -> bool:
    return both(got) >= written


def both(got: dict[str, list[tuple[str, int | None]]]) -> set[tuple[str, int | None]]:
    return {written for updates in got.values() for written in tuple(updates)}


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; the test's time-out ends what never comes."""
    tick = threading.Event()
    while not condition():
        tick.wait(0.02)


def test_a_member_that_was_removed_is_told_that_its_place_was_not_kept(
    settings: Settings, follow: Follow, group: str
) -> None:
    write(settings, ("ada", 1))
    subscriber = follow(group=group, auto_commit=False)
    next(subscriber)
    with admin_client(settings) as admin:
        members = admin.describe_groups([group])[group]["members"]
        admin.remove_group_members(group, [MemberToRemove(member_id=each["member_id"]) for each in members])
    with pytest.raises(CommitError, match=f"the place of group {group} was not kept"):
        subscriber.commit()
    assert subscriber.counters.commit_failures == 1


# How it ends


def test_stop_from_another_thread_ends_the_iteration(follow: Follow) -> None:
    subscriber = follow()
    threading.Timer(0.1, subscriber.stop).start()
    assert list(subscriber) == []


def test_after_stop_nothing_that_was_fetched_is_handed_over(settings: Settings, follow: Follow) -> None:
    write(settings, ("ada", 1), ("ada", 2))
    subscriber, got = follow(), []

    def handle(update: object) -> None:
        got.append(update)
        subscriber.stop()

    subscriber.run(handle)
    assert len(got) == 1


def test_a_closed_subscriber_says_so(follow: Follow) -> None:
    subscriber = follow()
    subscriber.close()
    subscriber.close()
    with pytest.raises(ClosedError):
        next(subscriber)


def test_the_second_signal_does_what_it_did_before() -> None:
    stopped: list[bool] = []
    with signals_call(lambda: stopped.append(True)):
        signal.raise_signal(signal.SIGINT)
        assert stopped == [True]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# What can go wrong


def test_a_missing_topic_is_named_with_what_to_do(kafka: EmbeddedKafka, prefix: str) -> None:
    with pytest.raises(TopicsError, match=rf"{prefix}profiles: missing: `streamer topics create`"):
        ProfileSubscriber(load(brokers=kafka.brokers, topic_prefix=prefix))


def test_a_broker_that_is_not_there_is_named() -> None:
    (port,) = free_ports(1)
    with pytest.raises(BrokerError, match=f"no broker at 127.0.0.1:{port}"):
        ProfileSubscriber(load(brokers=f"127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("options", "said"), [({"group": "g", "start": "snapshot"}, "leave out group="), ({"start": "end"}, "one of begin")]
)
def test_a_start_that_cannot_be_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ProfileSubscriber(load(), **options)  # type: ignore[arg-type]


def test_a_failed_start_leaves_signals_and_registry_as_they_were(kafka: EmbeddedKafka, prefix: str) -> None:
    registry, before = CollectorRegistry(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TopicsError):
        ProfileSubscriber(load(brokers=kafka.brokers, topic_prefix=prefix), handle_signals=True, registry=registry)
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(registry.collect()) == []


# Metrics, examples, weight


def test_counters_are_scraped_while_the_subscriber_is_open(settings: Settings, follow: Follow) -> None:
    registry = CollectorRegistry()
    write(settings, ("ada", 1), ("ada", 1), ("ada", None), ("ada", 1))
    with follow(registry=registry) as subscriber:
        take(subscriber, 3)
        value = registry.get_sample_value
        assert value("streamer_client_records_total", {"outcome": "updated"}) == 2
        assert value("streamer_client_records_total", {"outcome": "erased"}) == 1
        assert value("streamer_client_records_total", {"outcome": "repeated"}) == 1
        assert value("streamer_client_lag_records") == 0
    assert list(registry.collect()) == []


def test_two_subscribers_do_not_share_a_registry(follow: Follow) -> None:
    registry = CollectorRegistry()
    follow(registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        follow(registry=registry)


def test_the_printed_subscriber_runs_and_ends_at_sigterm(settings: Settings) -> None:
    write(settings, ("ada", 3), ("ada", None))
    environment = os.environ | {"STREAMER_BROKERS": settings.brokers, "STREAMER_TOPIC_PREFIX": settings.topic_prefix}
    command = [sys.executable, "-c", printed_example(ProfileSubscriber)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ada 3 [('running', 0.31)]\n"
        assert process.stdout.readline() == "ada was erased\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_the_printed_subscriber_has_about_ten_lines() -> None:
    lines = re.findall(r"\S.*", printed_example(ProfileSubscriber))
    assert len(lines) <= 10


@pytest.mark.parametrize("documented", [EventProducer, ProfileSubscriber])
def test_the_front_page_prints_the_same_examples(documented: type) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert printed_example(documented).strip() in {example.strip() for example in printed}


def test_importing_the_client_leaves_out_what_a_worker_needs() -> None:
    heavy = ("aiohttp", "aiokafka", "faust", "mode", "numba", "numpy", "prometheus_client", "rocksdict")
    code = f"import sys, streamer.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_checksums_are_computed_in_c() -> None:
    """In Python they cost 107 ns a byte: a snapshot of a million users would take four minutes instead of half one."""
    assert record_util.crc32c_c is not None
