"""Checks of the cluster: can it be reached, does it speak what we need, is each partition well, are clocks the same."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError
from kafka.admin import KafkaAdminClient

from streamer.engine.kafka_clients import admin_client, aiokafka_options
from streamer.engine.topics import check_topics, topic_specs
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools.doctor.finding import Finding, duration, error, many, note, ok, warning

OLDEST_TESTED: Final = (3, 9)
PROBE_S: Final = 3.0  # a broker in the same region answers within milliseconds
CLOCK_S: Final = 10.0  # a first transaction of a new cluster makes its topic
CLOCK_NOTED_MS, CLOCK_WRONG_MS = 1000, 60_000  # synchronised clocks differ by milliseconds
# What exactly-once needs, by the lowest version that will do. Brokers tell what they speak; proxies may speak less.
NEEDED_APIS: Final = {
    "Produce": 3,  # transactional
    "Fetch": 4,  # read_committed
    "ListOffsets": 2,
    "JoinGroup": 5,  # static members
    "InitProducerId": 0,
    "AddPartitionsToTxn": 0,
    "AddOffsetsToTxn": 0,
    "TxnOffsetCommit": 0,
    "EndTxn": 0,
    "DescribeConfigs": 0,
    "CreateTopics": 0,
}


def broker(settings: Settings) -> Iterator[Finding]:
    """Whether a broker answers, which version, and whether all that the cluster names can be reached from here."""
    with admin_client(settings) as admin:
        version = tuple(admin.get_broker_version_data(_any_node(admin)).broker_version)
        members = admin.describe_cluster()["brokers"]
    text = ".".join(map(str, version))
    if version < OLDEST_TESTED:
        yield warning(
            f"Kafka {text} at {settings.brokers}",
            f"older than what we test with ({'.'.join(map(str, OLDEST_TESTED))} and newer)",
            "upgrade the brokers",
        )
    else:
        yield ok(f"Kafka {text} at {settings.brokers}, {many(len(members), 'broker')}")
    for member in members:
        yield from _reachable(member)


def _any_node(admin: KafkaAdminClient) -> int:
    return int(admin.describe_cluster()["brokers"][0]["broker_id"])


def _reachable(member: dict[str, Any]) -> Iterator[Finding]:
    address = (member["host"], member["port"])
    try:
        socket.create_connection(address, timeout=PROBE_S).close()
    except OSError as exc:
        yield error(
            f"broker {member['broker_id']} calls itself {address[0]}:{address[1]}, and that cannot be reached from here"
            f" ({exc.strerror or exc})",
            "clients get that address from the first broker they ask, and then wait for it for ever",
            "start it if it is down; else set advertised.listeners to a name that resolves here, and open the port",
        )


def apis(settings: Settings) -> Iterator[Finding]:
    """Whether the broker has all requests that the worker sends."""
    with admin_client(settings) as admin:
        spoken = {key.name: newest for key, (_, newest) in admin.api_versions().items()}
    missing = [name for name, least in NEEDED_APIS.items() if spoken.get(name, -1) < least]
    if missing:
        yield error(
            f"the broker does not know {', '.join(missing)}",
            "transactions, which exactly-once rests on, do not work with it",
            "connect to Kafka itself, not through a proxy that passes only a part of the protocol",
        )
    else:
        yield ok("the broker knows all requests that the worker sends")


def topics(settings: Settings) -> Iterator[Finding]:
    """What `streamer topics check` says."""
    differences = check_topics(settings)
    for each in differences:
        make = error if each.severity == "error" else warning
        means = "a worker does not start with it (exit code 4)" if each.severity == "error" else "it works until then"
        yield make(f"{each.topic}: {each.what} is {each.have}, has to be {each.want}", means, each.hint)
    if not differences:
        yield ok("all topics are there, with the settings that they need")


def partitions(settings: Settings) -> Iterator[Finding]:
    """Whether topics that go together have as many partitions, and all partitions their leaders and copies."""
    with admin_client(settings) as admin:
        described = admin.describe_topics([spec.name for spec in topic_specs(settings)])
    found = {topic["name"]: topic["partitions"] for topic in described if not topic["error_code"]}
    bad = list(_uneven(settings, {name: len(parts) for name, parts in found.items()}))
    for name, parts in found.items():
        bad += _unwell(name, parts)
    yield from bad or [ok(f"{sum(map(len, found.values()))} partitions have leaders and all their copies")]


def _uneven(settings: Settings, counts: dict[str, int]) -> Iterator[Finding]:
    sources = {settings.topic(kind.topic): counts.get(settings.topic(kind.topic)) for kind in KINDS}
    if len({count for count in sources.values() if count}) > 1:
        yield error(
            "sources differ in their number of partitions: " + ", ".join(f"{n} {c}" for n, c in sources.items()),
            "a user's clicks and purchases would go to different workers, each with half of the profile",
            "make new topics with equal numbers under another STREAMER_TOPIC_PREFIX and send the events again",
        )


def _unwell(topic: str, parts: list[dict[str, Any]]) -> Iterator[Finding]:
    headless = [part["partition_index"] for part in parts if part["leader_id"] < 0]
    thin = [part["partition_index"] for part in parts if len(part["isr_nodes"]) < len(part["replica_nodes"])]
    if headless:
        yield error(
            f"{topic}: partitions {headless} have no leader",
            "they can be neither read nor written: the workers that own them stand still",
            "start the brokers that have them",
        )
    elif thin:
        yield warning(
            f"{topic}: partitions {thin} have copies that are behind or away",
            "one broker less may stop them",
            "look at the brokers: is one down, or its disk slow?",
        )


def clock(settings: Settings) -> Iterator[Finding]:
    """Our clock against the broker's: how far they may be apart, from a transaction that is opened and aborted.

    Its start is told in the broker's time. Nothing of it is in any of our topics: it names offsets of a group that
    nobody reads with, and takes them back.
    """
    name = f"{settings.group_id}-doctor"
    try:
        before, after = asyncio.run(_transaction(settings, name))
    except (AiokafkaError, TimeoutError) as exc:
        yield note(
            f"the broker's clock could not be read ({exc!r})",
            "a wrong clock shows as profiles published early or late, and as events from the future",
            f"allow Write on the transactional id {name} and Read on the group {name}, or compare `date` by hand",
        )
        return
    with admin_client(settings) as admin:
        started = admin.describe_transactions([name])[name].transaction_start_time_ms
    apart = max(before - started, started - after, 0)
    yield from _apart(apart, "behind" if started > after else "ahead")


async def _transaction(settings: Settings, name: str) -> tuple[int, int]:
    """Unix ms right before and right after the broker notes the start of a transaction."""
    topic = TopicPartition(settings.topic(KINDS[0].topic), 0)
    producer = AIOKafkaProducer(**aiokafka_options(settings), transactional_id=name, transaction_timeout_ms=10_000)
    async with asyncio.timeout(CLOCK_S):
        await producer.start()
        try:
            await producer.begin_transaction()
            before = _now_ms()
            await producer.send_offsets_to_transaction({topic: 0}, name)
            after = _now_ms()
            await producer.abort_transaction()
        finally:
            await producer.stop()
    return before, after


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _apart(apart_ms: int, side: str) -> Iterator[Finding]:
    if apart_ms <= CLOCK_NOTED_MS:
        yield ok("our clock and the broker's agree to within a second")
        return
    make = error if apart_ms >= CLOCK_WRONG_MS else warning
    yield make(
        f"our clock is {duration(apart_ms)} {side} of the broker's",
        "small changes are published late or early, and latencies and lags in seconds are wrong by as much",
        "run chrony or systemd-timesyncd on both machines",
    )
