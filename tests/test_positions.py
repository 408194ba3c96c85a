"""Positions and what they refer to: a state on disk and its changelog, offsets and the records behind them."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from streamer.engine.ingest import check_positions
from streamer.engine.partition import Partition
from streamer.engine.restore import Restore
from streamer.engine.shared import shared_state
from streamer.engine.store import Store, shared_cache
from streamer.engine.topic_ids import Origin, changelog_origin
from streamer.engine.topics import create_topics
from streamer.errors import StateError
from streamer.events import Click
from streamer.settings import Settings
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, deployed
from tests.worker_process import WorkerProcess, until

BAD_TOPICS, BAD_STATE, DELETED_UNREAD = 4, 6, 7
KEY = b"uada"  # of a row


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path) as own:
        yield own


@pytest.fixture
def admin(kafka: EmbeddedKafka) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka.brokers)
    yield client
    client.close()


@pytest.fixture
def partition(deployment: Deployment, tmp_path: Path) -> Iterator[Partition]:
    """Partition 0, whose store has one row and stands at offset 1 of a changelog that is empty yet."""
    partition = Partition(0, shared_state(deployment.settings))
    store = partition.store = Store(tmp_path / "state" / "0", shared_cache(8))
    store.write([(KEY, b"on disk")], 1)
    yield partition
    store.close()


def put(settings: Settings, topic: str, *values: bytes) -> None:
    """Records into partition 0 of a topic."""
    producer = KafkaProducer(bootstrap_servers=settings.brokers)
    for value in values:
        producer.send(topic, key=KEY, value=value, partition=0)
    producer.close()


def restore(settings: Settings, partition: Partition) -> Store:
    """The store, brought up to the changelog."""
    origin = changelog_origin(settings)
    asyncio.run(Restore(settings, origin, [partition], lambda done, total: None).run())
    assert partition.store is not None
    assert msgspec.msgpack.decode(partition.store.origin or b"", type=Origin) == origin
    return partition.store


def note(partition: Partition, origin: Origin) -> None:
    assert partition.store is not None
    partition.store.note_origin(msgspec.msgpack.encode(origin))


def moved(store: Store) -> list[Path]:
    """What was moved aside."""
    return list(store.path.parent.glob("0.unused-*"))


def make_anew(settings: Settings, admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics(), "the topic deleted")
    create_topics(settings)


# ---- a state on disk and its changelog
def test_state_without_a_note_of_its_changelog_is_adopted(deployment: Deployment, partition: Partition) -> None:
    put(deployment.settings, deployment.settings.changelog_topic, b"first")
    store = restore(deployment.settings, partition)
    assert (store.get(KEY), moved(store)) == (b"on disk", [])


@pytest.mark.parametrize(
    "other",
    [
        lambda own: msgspec.structs.replace(own, cluster="another"),
        lambda own: msgspec.structs.replace(own, topic="another-changelog"),
        lambda own: msgspec.structs.replace(own, topic_id="another"),
    ],
    ids=["cluster", "topic", "topic made anew"],
)
def test_state_of_another_changelog_is_moved_aside(
    deployment: Deployment, partition: Partition, other: Callable[[Origin], Origin]
) -> None:
    settings = deployment.settings
    note(partition, other(changelog_origin(settings)))
    put(settings, settings.changelog_topic, b"first", b"in the changelog")
    store = restore(settings, partition)
    assert store.get(KEY) == b"in the changelog"
    (aside,) = moved(store)
    kept = Store(aside, shared_cache(8))
    assert kept.get(KEY) == b"on disk"
    kept.close()


def test_changelog_made_anew_and_empty_leaves_the_only_state_alone(
    deployment: Deployment, partition: Partition, admin: KafkaAdminClient
) -> None:
    settings = deployment.settings
    note(partition, changelog_origin(settings))
    make_anew(settings, admin, settings.changelog_topic)
    with pytest.raises(StateError, match=r"changelog/0 has no records, but .* reset --to earliest --drop-state"):
        restore(settings, partition)
    assert partition.store is not None
    assert (partition.store.get(KEY), moved(partition.store)) == (b"on disk", [])


def test_restore_tells_how_far_it_is(deployment: Deployment, partition: Partition) -> None:
    settings = deployment.settings
    put(settings, settings.changelog_topic, *(b"row" for _ in range(50)))
    told: list[tuple[int, int]] = []
    origin = changelog_origin(settings)
    asyncio.run(Restore(settings, origin, [partition], lambda done, total: told.append((done, total))).run())
    assert told[-1] == (49, 49), "the store stood at 1"
    assert told == sorted(told)


# ---- offsets and the records behind them
def delete_all(admin: KafkaAdminClient, topic: str, partitions: int) -> None:
    """What retention does, at once and completely."""
    admin.delete_records({TopicPartition(topic, n): -1 for n in range(partitions)})


def last_words(process: WorkerProcess, code: int) -> str:
    assert process.exit_code() == code, process.said
    return process.said


def test_signals_deleted_unread_are_done_without(deployment: Deployment, admin: KafkaAdminClient) -> None:
    settings = deployment.settings
    process = deployment.worker().wait_ready()
    deployment.send([Click("c1", "ada", "mug", 1_760_000_000_000)])
    deployment.wait_drained()
    assert process.stop() == 0
    put(settings, settings.signals_topic, b"never decoded", b"nor this")
    delete_all(admin, settings.signals_topic, settings.partitions)
    process.start().wait_ready()
    deployment.until(lambda: "retention deleted signals before they were read" in process.said, "a word about them")
    deployment.send([Click("c2", "ada", "mug", 1_760_000_001_000)])
    deployment.wait_drained()
    assert process.said.count("retention deleted signals") == 1
    assert process.stop() == 0


def test_events_deleted_before_they_were_read_end_the_worker(deployment: Deployment, admin: KafkaAdminClient) -> None:
    clicks = deployment.settings.topic("clicks")
    process = deployment.worker().wait_ready()
    deployment.send([Click("c1", "ada", "mug", 1_760_000_000_000)])
    deployment.wait_drained()
    process.freeze()
    for n in (2, 3):  # a fetch that is under way takes the first of them
        deployment.send([Click(f"c{n}", "ada", "mug", 1_760_000_000_000 + n)])
    delete_all(admin, clicks, deployment.settings.partitions)
    process.wake()
    said = last_words(process, DELETED_UNREAD)
    assert f"retention deleted records before they were read ({clicks}/" in said
    assert "fetching failed" in said, "noticed at the next fetch, not at a rebalance"
    assert "retention deleted records" in last_words(process.start(), DELETED_UNREAD)


def test_topic_made_anew_and_longer_than_our_position_ends_the_worker(
    deployment: Deployment, admin: KafkaAdminClient
) -> None:
    settings = deployment.settings
    clicks = settings.topic("clicks")
    process = deployment.worker().wait_ready()
    deployment.send([Click("c1", "ada", "mug", 1_760_000_000_000)])
    deployment.wait_drained()
    assert process.stop() == 0
    make_anew(settings, admin, clicks)
    deployment.send([Click(f"d{n}", "ada", "mug", 1_760_000_001_000 + n) for n in range(3)])
    said = last_words(process.start(), BAD_STATE)
    assert f"{clicks} was deleted and made anew since we read it" in said
    assert "`streamer reset --to earliest --topic clicks`" in said


def test_topic_deleted_while_it_is_read_ends_the_worker(deployment: Deployment, admin: KafkaAdminClient) -> None:
    clicks = deployment.settings.topic("clicks")
    process = deployment.worker().wait_ready()
    admin.delete_topics([clicks])
    assert f"{clicks} was deleted while we read it" in last_words(process, BAD_TOPICS)


def test_position_beyond_the_end_of_a_topic_is_refused() -> None:
    place = TopicPartition("clicks", 0)
    with pytest.raises(StateError, match=r"clicks/0 ends at 3, we stand at 5: was .* `streamer reset`"):
        check_positions({place: 5}, {place: 0}, {place: 3})
