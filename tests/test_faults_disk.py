"""Disks and changelogs that are gone, old, cut off, made anew, or full of transactions that were never committed."""

import asyncio
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from streamer.events import Click
from tests.deployment import Deployment, Feed
from tests.fleet import KILLED, RATE, SOME, check, lose_disk, named
from tests.worker_process import WorkerProcess, until

BAD_STATE = 6
TS = 1_760_000_000_000


@pytest.fixture
def admin(fleet: Deployment) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=fleet.settings.brokers)
    yield client
    client.close()


@pytest.mark.slow  # test_end_to_end.py has one without load
def test_lost_disk_costs_nothing(fleet: Deployment) -> None:
    process = named(fleet, "w").wait_ready()
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        lose_disk(process)
        fleet.wait_progress(SOME)
    assert (fleet.ends or []).count(KILLED) == 1
    check(fleet)


def test_old_copy_of_the_disk_put_back_costs_nothing(fleet: Deployment) -> None:
    process = named(fleet, "w").wait_ready()
    copy = process.data_dir.with_name("copy")
    with Feed(fleet, RATE):
        fleet.wait_progress(SOME)
        assert process.stop() == 0, process.said
        shutil.copytree(process.data_dir, copy)
        process.start()
        fleet.wait_progress(SOME)
        lose_disk(process)
        copy.rename(process.data_dir)
        fleet.wait_progress(SOME)
    check(fleet)
    assert (fleet.ends or []).count(KILLED) == 1


# ---- the changelog
def clicks(count: int, first: int = 0) -> Iterator[Click]:
    return (Click(f"c{n}", f"user-{n % 20}", f"item-{n % 3}", TS + n) for n in range(first, first + count))


def settled(fleet: Deployment) -> WorkerProcess:
    """A worker that has stopped with some state, saved."""
    process = fleet.worker().wait_ready()
    fleet.send(clicks(60))
    fleet.wait_drained()
    assert process.stop() == 0, process.said
    return process


def cut_off(fleet: Deployment, admin: KafkaAdminClient) -> None:
    """The changelog loses all that it has so far, as when somebody lets retention in for a while."""
    topic = fleet.settings.changelog_topic
    for policy in ("compact,delete", "compact"):
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"cleanup.policy": policy})])
        if "delete" in policy:
            until(lambda: deleted(admin, topic, fleet.settings.partitions), "all records deleted")


def deleted(admin: KafkaAdminClient, topic: str, partitions: int) -> bool:
    """Delete all records, if the broker knows already that it may."""
    try:
        admin.delete_records({TopicPartition(topic, n): -1 for n in range(partitions)})
    except KafkaError:
        return False
    return True


def test_changelog_that_was_cut_off_costs_nothing_where_the_state_is_on_disk(
    fleet: Deployment, admin: KafkaAdminClient
) -> None:
    process, whole, copy = settled_and_cut_off(fleet, admin)
    whole.rename(process.data_dir)
    process.start().wait_ready()
    assert process.metric("streamer_restore_rows_total") == 0
    fleet.check_profiles()
    assert process.stop() == 0, process.said
    process.data_dir.rename(whole)
    copy.rename(process.data_dir)
    fleet.ends = None
    assert_refused(process.start())


@pytest.mark.slow
def test_changelog_that_was_cut_off_is_never_taken_for_the_whole_state(
    fleet: Deployment, admin: KafkaAdminClient
) -> None:
    process, whole, _ = settled_and_cut_off(fleet, admin)
    fleet.ends = None
    assert_refused(process.start())
    shutil.rmtree(process.data_dir)
    whole.rename(process.data_dir)
    process.start().wait_ready()
    fleet.check_profiles()


def settled_and_cut_off(fleet: Deployment, admin: KafkaAdminClient) -> tuple[WorkerProcess, Path, Path]:
    """A worker that has stopped, its disk beside its place, and an old copy; the changelog has only what came last."""
    process = settled(fleet)
    copy, whole = process.data_dir.with_name("copy"), process.data_dir.with_name("whole")
    shutil.copytree(process.data_dir, copy)
    process.start().wait_ready()
    fleet.send(clicks(20, first=60))
    fleet.wait_drained()
    cut_off(fleet, admin)
    fleet.send(clicks(20, first=80))
    fleet.wait_drained()
    assert process.stop() == 0, process.said
    process.data_dir.rename(whole)
    return process, whole, copy


def assert_refused(process: WorkerProcess) -> None:
    assert process.exit_code() == BAD_STATE, process.said
    assert "has no records before offset" in process.said


async def withdraw(brokers: str, topic: str, records: list[tuple[bytes, bytes]], partitions: int) -> None:
    """Records into all partitions in a transaction that is aborted."""
    async with AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=uuid.uuid4().hex) as producer:
        await producer.begin_transaction()
        for key, value in records:
            for partition in range(partitions):
                await producer.send_and_wait(topic, key=key, value=value, partition=partition)
        await producer.abort_transaction()


def test_transactions_that_were_withdrawn_are_in_no_profile_and_no_state(fleet: Deployment) -> None:
    """Their markers are the last that stand in every partition of the changelog: a restore has to end all the same."""
    settings = fleet.settings
    process = fleet.worker().wait_ready()
    fleet.send(clicks(40))
    events = [(b"user-%d" % n, msgspec.json.encode(Click(f"w{n}", f"user-{n}", "never", TS))) for n in range(20)]
    asyncio.run(withdraw(settings.brokers, settings.topic("clicks"), events, settings.partitions))
    fleet.send(clicks(40, first=40))
    fleet.wait_drained()
    rows = [(b"uuser-%d" % n, b"never a row") for n in range(20)]
    process.crash()
    asyncio.run(withdraw(settings.brokers, settings.changelog_topic, rows, settings.partitions))
    shutil.rmtree(process.data_dir)
    process.start().wait_ready()
    assert process.metric("streamer_restore_rows_total") > 0
    check(fleet)
