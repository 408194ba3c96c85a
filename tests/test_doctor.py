"""`streamer doctor` against real faults: each is made, found, named, and told what to do about."""

import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import ClusterAuthorizationFailedError
from kafka.structs import OffsetAndMetadata

from streamer.engine.descriptors import needed
from streamer.engine.kafka_clients import admin_client
from streamer.engine.store import DataDir
from streamer.engine.topics import create_topics
from streamer.settings import Settings, load
from streamer.tools.doctor import CHECKS, Check, Finding, cluster, examine, exit_code, flow, limits, machine
from streamer.tools.doctor.finding import ok
from streamer.tools.kafka import EmbeddedKafka
from streamer.upstream import partition_of
from tests.test_kafka_clients import free_ports
from tests.worker_process import ROOT, environment, until

DAY_MS = 86_400_000
HUSH = "hush"
ABOUT_THE_CLUSTER = [check for check in CHECKS if check.asks_broker]
JOIN_S = 10.0  # of a member of the group


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=2, data_dir=tmp_path / "state")
    create_topics(settings)
    return settings


@pytest.fixture
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    with admin_client(settings) as client:
        yield client


@pytest.fixture
def producer(settings: Settings) -> Iterator[KafkaProducer]:
    client = KafkaProducer(bootstrap_servers=settings.brokers)
    yield client
    client.close()


def find(findings: Any, severity: str, *words: str) -> Finding:
    """The one finding of this severity that has all these words; it says what it means and what to do."""
    told = list(findings)
    (match,) = [each for each in told if each.severity == severity and all(word in each.found for word in words)] or [
        pytest.fail(f"no {severity} with {words} in {told}")
    ]
    if severity in ("warning", "error"):
        assert match.means
        assert match.do
    return match


def worst(findings: Any) -> str:
    return max((each.severity for each in findings), key=["ok", "note", "warning", "error"].index)


# ---- the whole
def test_a_deployment_without_faults_has_no_warnings(settings: Settings) -> None:
    found = list(examine(settings, ABOUT_THE_CLUSTER))
    assert exit_code(found) == 0, found
    assert {each.check for each in found} == {check.name for check in ABOUT_THE_CLUSTER}


def test_without_a_broker_the_machine_is_looked_at_all_the_same(tmp_path: Path) -> None:
    settings = load(brokers=f"127.0.0.1:{free_ports(1)[0]}", data_dir=tmp_path)
    found = list(examine(settings))
    assert "set STREAMER_BROKERS" in find(found, "error", "no broker at", "refused").found
    assert "keys" in find(found, "note", "not looked at").found
    assert {each.check for each in found} >= {"disk", "memory", "lock"}
    assert exit_code(found) == 2


def test_a_check_that_fails_and_one_that_hangs_stop_no_other(settings: Settings) -> None:
    over = threading.Event()

    def fails(_: Settings) -> Iterator[Finding]:
        yield ok("so far so good")
        raise ZeroDivisionError

    def hangs(_: Settings) -> list[Finding]:
        over.wait()
        return []

    def passes(_: Settings) -> list[Finding]:
        return [ok("fine")]

    checks = [Check(each.__name__, each, asks_broker=False) for each in (fails, hangs, passes)]
    found = [(each.check, each.severity) for each in examine(settings, checks, timeout_s=0.2)]
    over.set()
    assert found == [("fails", "ok"), ("fails", "warning"), ("hangs", "warning"), ("passes", "ok")]


def test_what_a_user_may_not_look_at_is_a_note_and_no_error(settings: Settings) -> None:
    def looks(_: Settings) -> Iterator[Finding]:
        with admin_client(settings):
            raise ClusterAuthorizationFailedError
        yield ok("never")

    assert "Describe" in find(examine(settings, [Check("limits", looks)]), "note", "may not look").do


def doctor(brokers: str, *arguments: str, before: str = "", **options: Any) -> tuple[int, list[dict[str, str]]]:
    """Exit code and findings of the command, which a shell starts after `before`."""
    command = f"{before} exec {sys.executable} -m streamer doctor --json {' '.join(arguments)}"
    ours = environment(brokers=brokers, **options) | {"HOME": "/proc/nowhere"}
    ended = subprocess.run(["sh", "-c", command], env=ours, cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.returncode, json.loads(ended.stdout)


def test_a_machine_that_is_set_up_badly_is_told_so_by_the_command(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    (tmp_path / "file").touch()
    code, found = doctor(
        nobody,
        before="ulimit -n 600;",
        data_dir=tmp_path / "file",
        chekpoint_ms=5,
        http_host="0.0.0.0",
        http_token=HUSH,
    )
    bad = {(each["check"], each["severity"]): each for each in found}
    assert code == 2
    assert "600 open files" in bad["descriptors", "warning"]["found"]
    assert "did you mean STREAMER_CHECKPOINT_MS?" in bad["variables", "warning"]["do"]
    assert "cannot be written" in bad["disk", "error"]["found"]
    assert "HOME" in bad["kernels", "warning"]["do"]
    assert "STREAMER_ADVERTISED_URL" in bad["http", "error"]["do"]


# ---- topics
def alter(admin: KafkaAdminClient, topic: str, **configs: object) -> None:
    named = {key.replace("_", "."): str(value) for key, value in configs.items()}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=named)])


def in_force(look: Callable[[Settings], Any], settings: Settings, severity: str, *words: str) -> Finding:
    """The finding, once the broker has taken in what was changed."""

    def matches() -> list[Finding]:
        return [
            each for each in look(settings) if each.severity == severity and all(word in each.found for word in words)
        ]

    return find(until(matches, f"{severity} {words}"), severity)


def test_missing_topics_are_errors(settings: Settings, admin: KafkaAdminClient) -> None:
    admin.delete_topics([settings.topic("profiles")])
    assert "streamer topics create" in in_force(cluster.topics, settings, "error", "missing").do


def test_sources_with_unequal_partitions_are_an_error_with_both_numbers(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    admin.create_partitions({settings.topic("purchases"): 5})
    both = f"{settings.topic('clicks')} 2, {settings.topic('purchases')} 5"
    in_force(cluster.partitions, settings, "error", "differ", both)


def test_topic_settings_that_fight_ours_are_told_with_the_command_that_mends_them(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    alter(admin, settings.topic("profiles"), max_message_bytes=100_000, max_compaction_lag_ms=2**63 - 1)
    alter(admin, settings.topic("purchases"), retention_bytes=1 << 30)
    alter(admin, settings.topic("items"), unclean_leader_election_enable="true")
    alter(admin, settings.topic("clicks"), retention_ms=DAY_MS // 2)
    for severity, topic, words in (
        ("warning", "clicks", "keeps events for 12 hours"),
        ("warning", "items", "unclean.leader.election"),
        ("note", "purchases", "keeps 1 GiB a partition"),
        ("warning", "profiles", "max.compaction.lag.ms"),
        ("error", "profiles", "takes 97.7 KiB at once"),
    ):
        found = in_force(limits.limits, settings, severity, settings.topic(topic), words)
        assert "kafka-configs.sh --alter" in found.do


@pytest.fixture(scope="module")
def badly_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker whose own settings fight ours, and that calls itself by an address where nobody listens."""
    properties = {
        "group.min.session.timeout.ms": "20000",
        "transaction.max.timeout.ms": "30000",
        "transaction.state.log.min.isr": "2",
        "auto.create.topics.enable": "true",
    }
    with EmbeddedKafka(tmp_path_factory.mktemp("badly"), properties=properties) as broker:
        yield broker


def test_broker_settings_that_fight_ours_are_errors(badly_set: EmbeddedKafka) -> None:
    found = list(limits.limits(load(brokers=badly_set.brokers)))
    assert "STREAMER_SESSION_TIMEOUT_MS=10000" in find(found, "error", "brokers grant 20000").found
    find(found, "error", "transaction.max.timeout.ms", "60000")
    find(found, "error", "transaction.state.log.min.isr is 2", "1 broker")
    find(found, "note", "auto.create.topics.enable")


def test_more_copies_in_sync_than_there_are_is_an_error() -> None:
    def told(copies: int, in_sync: int, brokers: int) -> list[str]:
        there = limits.Cluster(brokers, {}, {"t": copies}, {"t": {"min.insync.replicas": str(in_sync)}})
        return [each.severity for each in limits._copies(load(), there)]

    assert told(3, 2, 3) == []
    assert told(1, 1, 1) == []
    assert told(1, 2, 1) == ["error"]
    assert told(3, 3, 3) == ["warning"]
    assert told(1, 1, 3) == ["warning"]


def test_partitions_without_a_leader_or_with_copies_behind_are_told() -> None:
    def part(number: int, leader: int, in_sync: list[int]) -> dict[str, Any]:
        return {"partition_index": number, "leader_id": leader, "replica_nodes": [1, 2], "isr_nodes": in_sync}

    assert list(cluster._unwell("t", [part(0, 1, [1, 2])])) == []
    assert "[1]" in find(cluster._unwell("t", [part(0, 1, [1]), part(1, -1, [])]), "error", "no leader").found
    find(cluster._unwell("t", [part(0, 1, [1])]), "warning", "behind or away")


def test_a_broker_that_names_an_address_nobody_reaches_is_an_error() -> None:
    member = {"broker_id": 7, "host": "127.0.0.1", "port": free_ports(1)[0]}
    assert "advertised.listeners" in find(cluster._reachable(member), "error", "broker 7").do


# ---- keys
def crc32(key: bytes) -> int:
    return zlib.crc32(key) % 2


def other(key: bytes) -> int:
    return 1 - partition_of(key, 2)


def put(producer: KafkaProducer, topic: str, keys: list[bytes], place: Callable[[bytes], int]) -> None:
    for key in keys:
        producer.send(topic, key=key, value=b"{}", partition=place(key))
    producer.flush()


def test_keys_of_javas_partitioner_are_well(settings: Settings, producer: KafkaProducer) -> None:
    for number in range(20):
        producer.send(settings.topic("clicks"), key=b"u%d" % number, value=b"{}")
    producer.flush()
    find(flow.keys(settings), "ok", f"{settings.topic('clicks')}: 20 sampled")


def test_keys_of_librdkafkas_partitioner_are_counted_and_the_culprit_is_named(
    settings: Settings, producer: KafkaProducer
) -> None:
    keys = [b"u%d" % number for number in range(40)]
    put(producer, settings.topic("purchases"), keys, crc32)
    wrong = sum(crc32(key) != partition_of(key, 2) for key in keys)
    assert 0 < wrong < 40
    found = find(flow.keys(settings), "error", settings.topic("purchases"), f"{wrong} of 40 sampled keys")
    assert "librdkafka's default (crc32) puts all of them there" in found.found
    assert "murmur2_random" in found.do


def test_keys_of_an_unknown_partitioner_and_records_without_a_key_are_told(
    settings: Settings, producer: KafkaProducer
) -> None:
    keys = [b"a%d" % number for number in range(30)]
    put(producer, settings.topic("clicks"), [key for key in keys if crc32(key) == partition_of(key, 2)][:4], other)
    producer.send(settings.topic("clicks"), value=b"{}").get()
    found = list(flow.keys(settings))
    assert "librdkafka" not in find(found, "error", "4 of 5 sampled keys").found
    find(found, "error", "1 of 5 sampled records have no key")


# ---- clocks
def test_the_clock_is_compared_without_a_record_in_any_topic_of_ours(
    settings: Settings, producer: KafkaProducer
) -> None:
    find(cluster.clock(settings), "ok", "agree")
    reader = KafkaConsumer(bootstrap_servers=settings.brokers)
    ends = reader.end_offsets([TopicPartition(settings.topic("clicks"), n) for n in range(2)])
    reader.close()
    assert set(ends.values()) == {0}


@pytest.mark.parametrize(("hours", "side"), [(-2, "behind"), (2, "ahead")])
def test_a_clock_that_is_wrong_is_told_with_its_side(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, hours: int, side: str
) -> None:
    monkeypatch.setattr(cluster, "_now_ms", lambda: time.time_ns() // 1_000_000 + hours * 3_600_000)
    assert side in find(cluster.clock(settings), "error", "2 hours").found


def test_a_producer_whose_clock_is_ahead_is_told(settings: Settings, producer: KafkaProducer) -> None:
    ahead = time.time_ns() // 1_000_000 + 1_800_000
    producer.send(settings.topic("clicks"), key=b"u", value=b"{}", timestamp_ms=ahead).get()
    find(flow.producers(settings), "warning", settings.topic("clicks"), "ahead of our clock")


# ---- the group
def test_events_that_wait_without_a_worker_are_counted(settings: Settings, producer: KafkaProducer) -> None:
    for number in range(30):
        producer.send(settings.topic("clicks"), key=b"u%d" % number, value=b"{}")
    producer.flush()
    found = list(flow.group(settings))
    find(found, "note", "no worker runs")
    find(found, "warning", "30 records wait", "no worker")


@pytest.fixture
def member(settings: Settings) -> Iterator[KafkaConsumer]:
    """Somebody in the workers' place, who reads nothing."""
    consumer = until(lambda: joined(settings), "a place in the group")
    yield consumer
    consumer.close()


def joined(settings: Settings) -> KafkaConsumer | None:
    """A member that has partitions; None where it got none in time, as one that meets a change of its topic may not."""
    topic = settings.topic("clicks")
    consumer = KafkaConsumer(
        topic, bootstrap_servers=settings.brokers, group_id=settings.group_id, enable_auto_commit=False
    )
    ends_at = time.monotonic() + JOIN_S
    while time.monotonic() < ends_at:
        if len(consumer.partitions_for_topic(topic) or ()) == settings.partitions:
            consumer.poll(timeout_ms=50)
        if consumer.assignment():
            return consumer
    consumer.close()
    return None


def test_a_group_that_stands_still_and_one_that_deleted_events_wait_for_are_told(
    settings: Settings, producer: KafkaProducer, admin: KafkaAdminClient, member: KafkaConsumer
) -> None:
    place = TopicPartition(settings.topic("clicks"), 0)
    for _ in range(9):
        producer.send(place.topic, key=b"u", value=b"{}", partition=0)
    producer.flush()
    member.commit({place: OffsetAndMetadata(2, "", -1)})
    found = list(flow.group(settings))
    find(found, "ok", "1 worker, stable")
    find(found, "warning", f"{place.topic}/0: 7 records wait", "none was read")
    admin.delete_records({place: 5})
    assert "retention.ms" in find(flow.group(settings), "error", f"{place.topic}/0", "not read yet").do


def test_a_lag_is_told_with_its_direction() -> None:
    assert "3.33 s left" in find([flow._trend(2000, 1250)], "note", "1,250 records behind, 375 a second fewer").found
    find([flow._trend(1000, 3000)], "warning", "3,000 records behind, 1,000 a second more")


# ---- the machine
def test_a_directory_in_memory_or_on_the_network_is_a_warning() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\nhost:/x /data/my\\040state nfs4 rw 0 0\n"
    assert machine.filesystem(Path("/run/x"), mounts) == "tmpfs"
    assert machine.filesystem(Path("/data/my state/0"), mounts) == "nfs4"
    assert machine.filesystem(Path("/data/other"), mounts) == "ext4"


@pytest.mark.skipif(
    machine.filesystem(Path("/dev/shm"), machine._mounts()) != "tmpfs", reason="no file system in memory"
)
def test_state_in_memory_is_told(settings: Settings) -> None:
    there = settings.model_copy(update={"data_dir": Path("/dev/shm/streamer-state")})
    find(machine.data_directory(there), "warning", "is in memory")


@pytest.mark.parametrize(("free", "severity"), [(100 << 20, "error"), (500 << 20, "warning"), (5 << 30, "ok")])
def test_a_disk_is_full_before_the_last_byte_is_taken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
) -> None:
    usage = machine.shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    find(machine.data_directory(settings), severity, "free for")


def test_who_holds_the_data_directory_is_asked_of_the_lock_and_not_of_the_note(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    held = DataDir(tmp_path)
    told = find(machine.lock(settings), "ok", "a worker runs")
    assert f"process {(tmp_path / 'LOCK').read_text()}" in told.found
    held.close()
    assert (tmp_path / "LOCK").read_text()
    find(machine.lock(settings), "ok", "no worker holds")


def test_a_worker_raises_its_own_limit_of_open_files_to_what_it_may_need() -> None:
    ask = (
        "import resource as r, streamer.engine.descriptors as d; d.raise_limit(1); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    command = f'ulimit -Sn 300; ulimit -Hn 2000; exec {sys.executable} -c "{ask}"'
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{needed(1)} 2000\n"


def test_a_cache_beyond_the_memory_is_an_error() -> None:
    find(machine.memory(load()), worst(machine.memory(load())), "100,000 users")
    far_too_many = load().model_copy(update={"cache_users": 10**12})
    assert "STREAMER_CACHE_USERS" in find(machine.memory(far_too_many), "error", "1,000,000,000,000 users").do
