"""`streamer reset` on a real broker: what was read is read again, and counts as it should."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from streamer.engine.position import Position
from streamer.engine.reset import Target, carry_out, plan
from streamer.engine.store import POSITION
from streamer.errors import SettingsError, StreamerError
from streamer.events import Click, Item
from streamer.pipeline.layout import N_SEEN, Shape, allocate
from streamer.pipeline.rows import LAYOUT, blank, is_blank, pack, unpack
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, counted, deployed, made_up
from tests.test_positions import make_anew
from tests.worker_process import environment

USERS, EVENTS = 20, 400
T0 = 1_760_000_000_000


@pytest.fixture
def deployment(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(kafka.brokers, tmp_path, publish_within_ms=500, seen_ids=1) as own:
        yield own


def read_once(deployment: Deployment) -> Any:
    """A worker that has read some events, stopped again."""
    events = made_up(USERS, items=5)
    deployment.send(Item(f"item-{n}", f"Item {n}", (f"tag-{n}",)) for n in range(5))
    deployment.send(next(events) for _ in range(EVENTS))
    process = deployment.worker().wait_ready()
    deployment.check_profiles()
    assert process.stop() == 0
    return process


def all_counted(deployment: Deployment) -> int:
    return sum(counted(profile) for profile in deployment.latest().values())


def versions(deployment: Deployment) -> dict[str, int]:
    return {user_id: profile["version"] for user_id, profile in deployment.latest().items()}


def everything_written(deployment: Deployment) -> dict[Any, int]:
    settings = deployment.settings
    consumer = KafkaConsumer(bootstrap_servers=settings.brokers)
    topics = [settings.changelog_topic, settings.models_topic, settings.topic("profiles")]
    ends = consumer.end_offsets([TopicPartition(topic, n) for topic in topics for n in range(settings.partitions)])
    consumer.close()
    return ends | deployment.committed()


def test_reset_to_earliest_without_the_state_rebuilds_the_same_profiles(deployment: Deployment) -> None:
    process = read_once(deployment)
    before, told = deployment.latest(), versions(deployment)
    done = carry_out(deployment.settings, Target(drop_state=True))
    assert sum(move.read_again for move in done.moves if move.topic in {"clicks", "purchases"}) == EVENTS
    process.start().wait_ready()
    deployment.until(
        lambda: all(version > told[user_id] for user_id, version in versions(deployment).items()),
        "everybody published anew",
    )
    deployment.check_profiles()  # versions without a gap or a repeat, too
    assert all_counted(deployment) == EVENTS
    for user_id, profile in deployment.latest().items():
        assert profile["activity"] == before[user_id]["activity"]
    assert process.stop() == 0
    assert deployment.check_stores() == deployment.settings.partitions


def test_dropped_state_leaves_no_model_of_an_item_behind(deployment: Deployment) -> None:
    read_once(deployment)
    topic = deployment.settings.models_topic
    models = {(each.partition, each.key) for each in deployment.read(topic)}
    assert models
    carry_out(deployment.settings, Target(drop_state=True))
    left = {(each.partition, each.key): each.value for each in deployment.read(topic)}
    assert left == dict.fromkeys(models)


def test_reset_without_dropping_the_state_counts_old_events_again(deployment: Deployment) -> None:
    process = read_once(deployment)
    carry_out(deployment.settings, Target())
    process.start().wait_ready()
    deployment.wait_drained()
    deployment.until(lambda: all_counted(deployment) == 2 * EVENTS, "every event counted twice")
    assert process.stop() == 0


@pytest.mark.slow
def test_a_lost_disk_after_a_reset_makes_no_difference(deployment: Deployment) -> None:
    process = read_once(deployment)
    carry_out(deployment.settings, Target(drop_state=True))
    process.start().wait_ready()
    deployment.check_profiles()
    assert process.stop() == 0
    other = deployment.worker("other").wait_ready()
    deployment.send([Click("later", "user-0", "item-0", T0 + 10 * EVENTS)])
    deployment.check_profiles()
    assert other.stop() == 0


def test_dry_run_changes_nothing(deployment: Deployment) -> None:
    read_once(deployment)
    before = everything_written(deployment)
    planned = plan(deployment.settings, Target(drop_state=True))
    assert planned.changes_anything
    assert [(move.topic, move.partition) for move in planned.moves] == sorted(
        (m.topic, m.partition) for m in planned.moves
    )
    assert everything_written(deployment) == before


def test_running_worker_is_named_and_nothing_is_done(deployment: Deployment) -> None:
    process = deployment.worker().wait_ready()
    with pytest.raises(StreamerError, match=r"workers of .* are running: .* Stop them first"):
        carry_out(deployment.settings, Target())
    deployment.send([Click("c1", "ada", "item-0", T0)])
    deployment.check_profiles()
    assert process.stop() == 0


@pytest.mark.slow
def test_time_is_when_kafka_got_the_events(deployment: Deployment) -> None:
    settings = deployment.settings
    events = made_up(USERS, items=5)
    deployment.send(next(events) for _ in range(EVENTS))
    process = deployment.worker().wait_ready()
    deployment.check_profiles()
    from_here = max(
        each.timestamp for topic in ("clicks", "purchases") for each in deployment.read(settings.topic(topic))
    )
    late = [next(events) for _ in range(50)]
    deployment.until(lambda: time.time_ns() // 1_000_000 > from_here, "the clock to go on")
    deployment.send(late)
    deployment.check_profiles()
    assert process.stop() == 0
    planned = plan(settings, Target(since_ms=from_here + 1))
    assert sum(move.read_again for move in planned.moves) == len(late)


def test_topic_made_anew_is_read_after_a_reset(deployment: Deployment, kafka: EmbeddedKafka) -> None:
    settings = deployment.settings
    process = read_once(deployment)
    admin = KafkaAdminClient(bootstrap_servers=kafka.brokers)
    make_anew(settings, admin, settings.topic("clicks"))
    admin.close()
    carry_out(settings, Target(topics=("clicks",)))
    process.start().wait_ready()
    before = all_counted(deployment)
    deployment.send([Click(f"d{n}", "user-0", "item-0", T0 + 10 * EVENTS + n) for n in range(9)])
    deployment.until(lambda: all_counted(deployment) == before + 9, "the events of the new topic")
    assert process.stop() == 0


def test_signals_that_are_read_again_are_known_by_the_checkpoint_that_said_so(deployment: Deployment) -> None:
    read_once(deployment)
    carry_out(deployment.settings, Target(topics=("item-signals",)))
    rows = {
        each.partition: each.value
        for each in deployment.read(deployment.settings.changelog_topic)
        if each.key == POSITION
    }
    positions = [msgspec.msgpack.decode(row, type=Position) for row in rows.values()]
    again = [each for each in positions if each.signals]
    assert again
    assert all(each.next["item-signals"] == 0 and each.signals_reset_at == each.checkpoint for each in again)


def test_only_topics_with_positions_can_be_reset() -> None:
    with pytest.raises(SettingsError, match="positions are kept in clicks, purchases, items, item-signals"):
        plan(load(), Target(topics=("profiles",)))
    with pytest.raises(SettingsError, match="leave --topic out"):
        plan(load(), Target(topics=("clicks",), drop_state=True))


def test_blank_row_keeps_the_version_and_nothing_else() -> None:
    shape = Shape(40, 64, 32)
    users = allocate(2, shape)
    users.head["version"][:] = (7, 0)
    users.head["clicks"][:] = 5
    users.head["held_until"][:] = 99
    users.head["counts"][:, N_SEEN] = 1
    published, never = pack(users, np.arange(2), [b"why", b""])
    kept = blank(bytes([LAYOUT + 1]) + published[1:] + b"what a later version adds")
    assert blank(never) is None
    assert kept is not None
    assert is_blank(kept)
    assert not is_blank(published)
    again = allocate(2, shape)
    assert unpack(again, np.arange(1), [kept]) == [b""]
    assert [again.head[name][0] for name in ("version", "clicks", "held_until")] == [7, 0, 0]


# ---- the command
def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = environment(brokers=settings.brokers, topic_prefix=settings.topic_prefix, partitions=settings.partitions)
    command = [sys.executable, "-m", "streamer", "reset", *arguments]
    return subprocess.run(command, env=ours, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_command_says_what_it_would_do_and_does_it_when_told_so(deployment: Deployment) -> None:
    read_once(deployment)
    looked = json.loads(run(deployment.settings, "--to", "earliest", "--dry-run", "--json").stdout)
    assert looked["done"] is False
    assert sum(move["read_again"] for move in looked["moves"]) == EVENTS
    assert all(move["to"] == 0 for move in looked["moves"])
    asked = run(deployment.settings, "--to", "earliest")
    assert asked.returncode == 2
    assert "400 records at most are read again, 0 skipped; state stays as it is" in asked.stdout
    assert "add --yes" in asked.stderr
    assert run(deployment.settings, "--to", "earliest", "--yes").stdout.endswith("done: start the workers\n")
    again = json.loads(run(deployment.settings, "--to", "earliest", "--yes", "--json").stdout)
    assert again["done"] is False, "they stand there already"


@pytest.mark.parametrize("time", ["yesterday", "2026-01-31", "2026-01-31T12:00:00"])
def test_time_that_says_too_little_is_refused(time: str) -> None:
    refused = run(load(), "--to", time)
    assert refused.returncode == 2
    assert "a time with its zone" in refused.stderr
