"""Settings that fight each other: ours against the brokers' and the topics' own."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from kafka.admin import ConfigResource, ConfigResourceType

from streamer.engine.kafka_clients import admin_client
from streamer.engine.topics import DAY_MS, topic_specs
from streamer.engine.transactions import BATCH_BYTES, TIMEOUT_MS
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools.doctor.finding import Finding, duration, error, note, ok, size, warning

OUTAGE_MS: Final = 3 * DAY_MS  # a weekend without workers: their events have to be there on Monday
BATCH_OVERHEAD: Final = 12  # offset and length of a batch, which a topic's limit counts and a producer's does not
FOR_EVER: Final = 2**63 - 1  # Kafka's way to say so


class Cluster(NamedTuple):
    """What brokers and topics are set to: `broker` of any one of them, `copies` and `configs` by topic."""

    brokers: int
    broker: Mapping[str, str]
    copies: Mapping[str, int]
    configs: Mapping[str, Mapping[str, str]]


Rule = Callable[[Settings, Cluster], Iterator[Finding]]


def limits(settings: Settings) -> Iterator[Finding]:
    """Every rule below, over one look at the cluster."""
    cluster = _look(settings)
    found = [finding for rule in RULES for finding in rule(settings, cluster)]
    yield from found or [ok("no setting fights another")]


def _look(settings: Settings) -> Cluster:
    names = [spec.name for spec in topic_specs(settings)]
    with admin_client(settings) as admin:
        nodes = [member["broker_id"] for member in admin.describe_cluster()["brokers"]]
        described: list[dict[str, Any]] = [topic for topic in admin.describe_topics(names) if not topic["error_code"]]
        there = [topic["name"] for topic in described]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
        resources.append(ConfigResource(ConfigResourceType.BROKER, str(nodes[0])))
        told = admin.describe_configs(resources, config_filter="all")
    broker, configs = next(iter(told["broker"].values())), told.get("topic", {})
    copies = {topic["name"]: min(len(part["replica_nodes"]) for part in topic["partitions"]) for topic in described}
    return Cluster(len(nodes), _values(broker), copies, {name: _values(entries) for name, entries in configs.items()})


def _values(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {key: str(entry["value"]) for key, entry in entries.items()}


def _session(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    least, most = (int(cluster.broker.get(f"group.{end}.session.timeout.ms", 0)) for end in ("min", "max"))
    if not least <= settings.session_timeout_ms <= (most or FOR_EVER):
        yield error(
            f"STREAMER_SESSION_TIMEOUT_MS={settings.session_timeout_ms}, brokers grant {least} to {most}",
            "no worker can join the group",
            "set it between the two, or change group.min/max.session.timeout.ms of the brokers",
        )


def _transaction_timeout(_: Settings, cluster: Cluster) -> Iterator[Finding]:
    most = int(cluster.broker.get("transaction.max.timeout.ms", FOR_EVER))
    if most < TIMEOUT_MS:
        yield error(
            f"transaction.max.timeout.ms of the brokers is {most}, our transactions ask for {TIMEOUT_MS}",
            "no worker can open a partition",
            f"raise it to {TIMEOUT_MS} or more in the brokers' properties",
        )


def _transaction_copies(_: Settings, cluster: Cluster) -> Iterator[Finding]:
    want = int(cluster.broker.get("transaction.state.log.min.isr", 1))
    if cluster.brokers < want:
        yield error(
            f"transaction.state.log.min.isr is {want}, and there are {cluster.brokers} brokers",
            "no transaction can begin: workers start and then stand still",
            "start more brokers, or set transaction.state.log.min.isr and .replication.factor to what there is",
        )


def _batches(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    ours = (settings.topic("profiles"), settings.changelog_topic, settings.signals_topic, settings.models_topic)
    for topic in ours:
        most = int(cluster.configs.get(topic, {}).get("max.message.bytes", FOR_EVER))
        if most < BATCH_BYTES + BATCH_OVERHEAD:
            yield error(
                f"{topic} takes {size(most)} at once, and the worker writes batches of up to {size(BATCH_BYTES)}",
                "the first full one is refused, and the worker leaves with exit code 75, again and again",
                _alter(topic, "max.message.bytes", BATCH_BYTES + BATCH_OVERHEAD),
            )


def _copies(_: Settings, cluster: Cluster) -> Iterator[Finding]:
    single = [topic for topic, copies in cluster.copies.items() if copies == 1]
    if single and cluster.brokers >= 3:
        yield warning(
            f"{', '.join(single)}: one copy each, on a cluster of {cluster.brokers} brokers",
            "the disk of one broker takes events and state with it, and no changelog brings them back",
            "kafka-reassign-partitions.sh adds copies; STREAMER_REPLICATION=3 for topics to come",
        )
    for topic, copies in cluster.copies.items():
        in_sync = int(cluster.configs.get(topic, {}).get("min.insync.replicas", 1))
        if in_sync > copies:
            yield error(
                f"{topic}: min.insync.replicas is {in_sync}, and it has {copies} copies",
                "every write is refused",
                _alter(topic, "min.insync.replicas", max(copies - 1, 1)),
            )
        elif in_sync == copies > 1:
            yield warning(
                f"{topic}: min.insync.replicas is {in_sync}, as many as it has copies",
                "a single broker that restarts stops all writing",
                _alter(topic, "min.insync.replicas", copies - 1),
            )


def _retention(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    for kind in KINDS:
        topic = settings.topic(kind.topic)
        kept_ms = int(cluster.configs.get(topic, {}).get("retention.ms", -1))
        if 0 <= kept_ms < OUTAGE_MS:
            yield warning(
                f"{topic} keeps events for {duration(kept_ms)}",
                "workers that are down for longer find theirs deleted, and stop with exit code 7",
                _alter(topic, "retention.ms", 2 * OUTAGE_MS),
            )
        kept_bytes = int(cluster.configs.get(topic, {}).get("retention.bytes", -1))
        if kept_bytes >= 0:
            yield note(
                f"{topic} keeps {size(kept_bytes)} a partition, however old",
                "a burst, or a busy partition, shortens the outage that can be survived",
                _alter(topic, "retention.bytes", -1) + ", if the disks are large enough",
            )


def _compaction(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    if cluster.broker.get("log.cleaner.enable") == "false":
        yield error(
            "log.cleaner.enable is false",
            "changelog and profiles grow for ever, and so does the time to restore",
            "take it out of the brokers' properties",
        )
    topic = settings.topic("profiles")
    lag_ms = int(cluster.configs.get(topic, {}).get("max.compaction.lag.ms", 0))
    if lag_ms == FOR_EVER:
        yield warning(
            f"{topic}: max.compaction.lag.ms has no limit",
            "the profile of a user who was erased may stay on the brokers' disks for ever",
            _alter(topic, "max.compaction.lag.ms", 7 * DAY_MS),
        )


def _leaders(_: Settings, cluster: Cluster) -> Iterator[Finding]:
    unclean = [t for t, configs in cluster.configs.items() if configs.get("unclean.leader.election.enable") == "true"]
    if unclean:
        yield warning(
            f"{', '.join(unclean)}: unclean.leader.election.enable is true",
            "a copy that is behind may become leader: what was committed is then lost, and exactly-once with it",
            _alter(unclean[0], "unclean.leader.election.enable", "false") + ", and the others",
        )


def _automatic_topics(_: Settings, cluster: Cluster) -> Iterator[Finding]:
    if cluster.broker.get("auto.create.topics.enable") == "true":
        yield note(
            "auto.create.topics.enable is true",
            "a topic name with a slip of the pen becomes a topic of the wrong shape, and nobody is told",
            "set it to false; `streamer topics create` makes ours",
        )


RULES: Final[tuple[Rule, ...]] = (
    _session,
    _transaction_timeout,
    _transaction_copies,
    _batches,
    _copies,
    _retention,
    _compaction,
    _leaders,
    _automatic_topics,
)


def _alter(topic: str, key: str, value: object) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {key}={value}"
