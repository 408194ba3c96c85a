"""What our topics have to look like: one table, created where missing, compared where present, never altered.

A topic that its first producer creates has the broker's defaults, and those lose state without a word: `profiles` would
be deleted after a week instead of compacted. So a worker starts only when no difference is an error.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
import structlog
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from streamer.engine.kafka_clients import admin_client
from streamer.errors import TopicsError
from streamer.events import KINDS
from streamer.settings import Settings

log = structlog.get_logger(__name__)

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
OUTAGE_MS = (
    7 * DAY_MS
)  # the longest standstill of all workers after which nothing may be lost or come back from the dead
SIGNALS_MS = 3 * DAY_MS  # read within seconds: this is for a weekend without workers
REJECTED_MS = 14 * DAY_MS  # time to see it, to mend the producer and to put the records back
HEADERS_BYTES = 65_536  # reason, detail and origin, which a rejected record carries on top
# A record at its source's limit (Kafka's default: 1 MiB, compressed) with our headers and perhaps less well compressed.
REJECTED_MAX_BYTES = 8 * 1_048_576

_COMPACT = {
    "cleanup.policy": "compact",
    # A deletion stays visible this long: a worker that was away for less cannot bring a deleted key back.
    "delete.retention.ms": OUTAGE_MS,
    # The segment that is written to is never compacted: a quiet topic still is, daily.
    "segment.ms": DAY_MS,
    # At most a fifth of what a restore reads is stale; Kafka's 0.5 saves disk writes that we do not have many of.
    "min.cleanable.dirty.ratio": 0.2,
    # What was erased or replaced is gone from the disk within this time, however quiet the partition is.
    "max.compaction.lag.ms": OUTAGE_MS,
}
_CHANGELOG = _COMPACT | {
    # The last hour stays whole: how a state came about can be read, and a restore never races the cleaner.
    "min.compaction.lag.ms": HOUR_MS,
    # Of 128 MiB segments only the last is uncompacted: a restore is not slowed by a gigabyte of repeats.
    "segment.bytes": 128 * 1_048_576,
}
_SAFE = {
    "min.insync.replicas": "2"
}  # of three copies: one broker may be away, and an acknowledged record is on two disks


class TopicSpec(msgspec.Struct, frozen=True):
    """What one topic has to look like: `replication` -1 is the broker's default, `configs` are in Kafka's own units."""

    name: str
    partitions: int
    replication: int
    configs: dict[str, str]


class Difference(msgspec.Struct, frozen=True):
    """One way in which a topic is not as it has to be. An `error` keeps workers from starting; `hint` is what to do."""

    topic: str
    what: str
    want: str
    have: str
    severity: Literal["error", "warning"]
    hint: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what} is {self.have}, has to be {self.want}: {self.hint}"


class Rule(msgspec.Struct, frozen=True):
    """How a topic's own value of a config is compared with ours, and how bad a difference is."""

    relation: Literal["=", "≥", "≤"]
    severity: Literal["error", "warning"]

    def holds(self, have: str, want: str) -> bool:
        """Whether `have` will do; -1 means without limit in Kafka."""
        if self.relation == "=":
            return have == want
        if self.relation == "≥":
            return float(have) == -1 or float(have) >= float(want)
        return float(have) <= float(want)


# Configs without a rule here are advice for new topics: an operator who chose otherwise is not told about it.
RULES = {
    "cleanup.policy": Rule("=", "error"),
    "min.insync.replicas": Rule("≥", "warning"),
    "retention.ms": Rule("≥", "warning"),
    "delete.retention.ms": Rule("≥", "warning"),
}


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """All topics of this deployment under their full names."""
    # Timestamps stay the producer's (CreateTime, Kafka's default): what is from the future is judged by them. Retention
    # stays the broker's: it counts from those timestamps, and a limit of ours would delete replayed old events unread.
    source = {"cleanup.policy": "delete"}
    rejected = {"cleanup.policy": "delete", "retention.ms": REJECTED_MS, "max.message.bytes": REJECTED_MAX_BYTES}
    configs: dict[str, dict[str, Any]] = {settings.topic(kind.topic): source for kind in KINDS}
    configs |= {
        settings.topic("items"): _COMPACT,
        settings.topic("profiles"): _COMPACT,
        settings.topic("rejected"): rejected,
        settings.signals_topic: {"cleanup.policy": "delete", "retention.ms": SIGNALS_MS},
        settings.models_topic: _COMPACT,
        settings.changelog_topic: _CHANGELOG,
    }
    return tuple(_spec(settings, name, of_topic) for name, of_topic in configs.items())


def create_topics(settings: Settings) -> list[str]:
    """Create what is missing, wait until it has leaders, and return its names. Others may do the same at the same time.

    Raises TopicsError with all refusals at once, BrokerError when there is no broker.
    """
    specs = {spec.name: spec for spec in topic_specs(settings)}
    with admin_client(settings) as admin:
        missing = specs.keys() - {topic["name"] for topic in _describe(admin, specs) if not topic["error_code"]}
        if not missing:
            return []
        answers = admin.create_topics({name: _request(specs[name]) for name in missing}, raise_errors=False)["topics"]
        refused = [answer for answer in answers if answer["error_code"] not in _FINE]
        if refused:
            raise TopicsError("topics could not be created:\n  " + "\n  ".join(map(_refusal, refused)))
        admin.wait_for_topics(missing)
    created = {answer["name"] for answer in answers if answer["error_code"] == 0}
    return [name for name in specs if name in created]


def check_topics(settings: Settings) -> list[Difference]:
    """Every difference between the topics that are there and those that have to be, in the order of `topic_specs`."""
    specs = topic_specs(settings)
    with admin_client(settings) as admin:
        topics = {topic["name"]: topic for topic in _describe(admin, [spec.name for spec in specs])}
        configs = _configs(admin, [name for name, topic in topics.items() if not topic["error_code"]])
    differences: list[Difference] = []
    for spec in specs:
        topic, of_topic = topics.get(spec.name, {"error_code": _MISSING}), configs.get(spec.name, {})
        differences += _compare(spec, topic, of_topic)
    return [*differences, *_compare_rejected(settings, configs)]


def require_topics(settings: Settings) -> None:
    """Raise TopicsError with every error that `check_topics` finds; log its warnings."""
    differences = check_topics(settings)
    for difference in differences:
        if difference.severity == "warning":
            log.warning(str(difference))
    errors = [str(difference) for difference in differences if difference.severity == "error"]
    if errors:
        raise TopicsError(
            "topics are not as they have to be:\n  "
            + "\n  ".join(errors)
            + "\n`streamer topics create` makes what is missing; `streamer topics check` shows all differences"
        )


_FINE = (0, kafka_errors.TopicAlreadyExistsError.errno)  # somebody else was faster
_MISSING = kafka_errors.UnknownTopicOrPartitionError.errno


def _spec(settings: Settings, name: str, configs: dict[str, Any]) -> TopicSpec:
    texts = {key: str(value) for key, value in configs.items()}
    if settings.replication >= 3:
        texts |= _SAFE
    return TopicSpec(name, settings.partitions, settings.replication, texts)


def _request(spec: TopicSpec) -> dict[str, Any]:
    return {"num_partitions": spec.partitions, "replication_factor": spec.replication, "configs": spec.configs}


def _refusal(answer: dict[str, Any]) -> str:
    error = kafka_errors.for_code(answer["error_code"])
    reason = answer.get("error_message") or error.description or error.__name__
    hints = {
        kafka_errors.InvalidReplicationFactorError: "set STREAMER_REPLICATION to at most the number of brokers",
        kafka_errors.TopicAuthorizationFailedError: "let this user create topics, or have them created for you",
        kafka_errors.ClusterAuthorizationFailedError: "let this user create topics, or have them created for you",
    }
    return f"{answer['name']}: {reason}: {hints.get(error, 'see the log of the broker')}"


def _describe(admin: KafkaAdminClient, names: Iterable[str]) -> list[dict[str, Any]]:
    topics: list[dict[str, Any]] = admin.describe_topics(list(names))
    return topics


def _configs(admin: KafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """The values in force of every topic's configs, whether they are its own or the broker's."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    described = admin.describe_configs(resources, config_filter="all")["topic"]
    return {name: {key: entry["value"] for key, entry in of_topic.items()} for name, of_topic in described.items()}


def _compare(spec: TopicSpec, topic: dict[str, Any], configs: dict[str, str]) -> list[Difference]:
    if topic["error_code"] == _MISSING:
        return [Difference(spec.name, "topic", "there", "missing", "error", "run `streamer topics create`")]
    if topic["error_code"]:
        name = kafka_errors.for_code(topic["error_code"]).__name__
        return [Difference(spec.name, "topic", "readable", name, "error", "ask the cluster's owner for access")]
    partitions = topic["partitions"]
    copies = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
    return [
        *_compare_partitions(spec, len(partitions)),
        *_compare_copies(spec, copies),
        *_compare_configs(spec, copies, configs),
    ]


def _compare_partitions(spec: TopicSpec, have: int) -> Iterator[Difference]:
    if have != spec.partitions:
        hint = (
            f"set STREAMER_PARTITIONS={have} if all topics have as many, else start with new topics under another"
            " STREAMER_TOPIC_PREFIX (partitions added to a topic in use would split its users' histories)"
        )
        yield Difference(spec.name, "partitions", str(spec.partitions), str(have), "error", hint)


def _compare_copies(spec: TopicSpec, have: int) -> Iterator[Difference]:
    if have < spec.replication:
        hint = "kafka-reassign-partitions.sh adds copies"
        yield Difference(spec.name, "replication", f"≥ {spec.replication}", str(have), "warning", hint)


def _compare_configs(spec: TopicSpec, copies: int, configs: dict[str, str]) -> Iterator[Difference]:
    wanted = spec.configs | (_SAFE if copies >= 3 else {})
    for key, rule in RULES.items():
        want, have = wanted.get(key), configs.get(key)
        if want is None or have is None or rule.holds(have, want):
            continue
        wish = want if rule.relation == "=" else f"{rule.relation} {want}"
        yield Difference(spec.name, key, wish, have, rule.severity, _alter(spec.name, key, want))


def _compare_rejected(settings: Settings, configs: dict[str, dict[str, str]]) -> Iterator[Difference]:
    """A record at its source's limit has to fit into `rejected` with our headers, or it would stop its partition."""
    key, rejected = "max.message.bytes", settings.topic("rejected")
    have = configs.get(rejected, {}).get(key)
    sources = [configs.get(settings.topic(kind.topic), {}).get(key) for kind in KINDS]
    want = max((int(limit) for limit in sources if limit), default=0) + HEADERS_BYTES
    if have is not None and int(have) < want:
        yield Difference(rejected, key, f"≥ {want}", have, "error", _alter(rejected, key, str(want)))


def _alter(topic: str, key: str, value: str) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {key}={value}"
