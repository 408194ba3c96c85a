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

Severity = Literal["error", "warning"]

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
OUTAGE_MS = 7 * DAY_MS  # the longest standstill of all workers after which nothing may come back from the dead
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
_IN_SYNC = "min.insync.replicas"


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
    severity: Severity
    hint: str

    @property
    def problem(self) -> str:
        """All but the topic, in words."""
        if self.what == "topic":
            return f"{self.have}: {self.hint}"
        return f"{self.what} is {self.have}, has to be {self.want}: {self.hint}"


class Rule(msgspec.Struct, frozen=True):
    """How a topic's own value of a config is compared with ours, and how bad a difference is."""

    relation: Literal["=", "≥"]
    severity: Severity

    def holds(self, have: str, want: str) -> bool:
        """Whether `have` will do; -1 means without limit in Kafka."""
        if self.relation == "=":
            return have == want
        return int(have) == -1 or int(have) >= int(want)


# Configs without a rule here are advice for new topics: an operator who chose otherwise is not told about it.
RULES = {
    "cleanup.policy": Rule("=", "error"),
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
        present = {topic["name"] for topic in _describe(admin, specs) if not topic["error_code"]}
        missing = [name for name in specs if name not in present]
        if not missing:
            return []
        answers = admin.create_topics({name: _request(specs[name]) for name in missing}, raise_errors=False)["topics"]
        refused = [answer for answer in answers if answer["error_code"] not in _FINE]
        if refused:
            reasons = grouped((answer["name"], _refusal(answer)) for answer in refused)
            raise TopicsError("topics could not be created:\n  " + "\n  ".join(reasons))
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
    for line in describe(differences, "warning"):
        log.warning(line)
    errors = describe(differences, "error")
    if errors:
        raise TopicsError(
            "topics are not as they have to be:\n  "
            + "\n  ".join(errors)
            + "\n`streamer topics create` makes what is missing; `streamer topics check` shows all differences"
        )


def largest_records(settings: Settings, names: list[str]) -> dict[str, int]:
    """The largest record, in bytes with its headers, that each topic takes as it is now. Raises BrokerError."""
    with admin_client(settings) as admin:
        return {name: int(config["max.message.bytes"]) for name, config in _configs(admin, names).items()}


def rejected_bytes(settings: Settings) -> int:
    """The largest record, in bytes with its headers, that `rejected` takes as it is now. Raises BrokerError."""
    name = settings.topic("rejected")
    return largest_records(settings, [name])[name]


def describe(differences: Iterable[Difference], severity: Severity) -> list[str]:
    """A line for each distinct problem of this severity, naming all topics that have it."""
    return grouped((each.topic, each.problem) for each in differences if each.severity == severity)


def grouped(problems: Iterable[tuple[str, str]]) -> list[str]:
    """Topics with the same problem on one line: most mistakes are made for all topics at once.

    >>> grouped([("clicks", "missing"), ("items", "missing"), ("profiles", "small")])
    ['clicks, items: missing', 'profiles: small']
    """
    topics: dict[str, list[str]] = {}
    for topic, problem in problems:
        topics.setdefault(problem, []).append(topic)
    return [f"{', '.join(names)}: {problem}" for problem, names in topics.items()]


_FINE = (0, kafka_errors.TopicAlreadyExistsError.errno)  # somebody else was faster
_MISSING = kafka_errors.UnknownTopicOrPartitionError.errno


def _spec(settings: Settings, name: str, configs: dict[str, Any]) -> TopicSpec:
    texts = {key: str(value) for key, value in configs.items()}
    if settings.replication >= 3:  # one broker may be away, and what is acknowledged is still on two disks
        texts[_IN_SYNC] = "2"
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
    return f"{reason.rstrip('.')}: {hints.get(error, 'see the log of the broker')}"


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
        *_compare_copies(spec, copies, configs),
        *_compare_configs(spec, configs),
    ]


def _compare_partitions(spec: TopicSpec, have: int) -> Iterator[Difference]:
    if have != spec.partitions:
        hint = (
            f"set STREAMER_PARTITIONS={have} if all topics have as many, else start with new topics under another"
            " STREAMER_TOPIC_PREFIX (partitions added to a topic in use would split its users' histories)"
        )
        yield Difference(spec.name, "partitions", str(spec.partitions), str(have), "error", hint)


def _compare_copies(spec: TopicSpec, have: int, configs: dict[str, str]) -> Iterator[Difference]:
    if have < spec.replication:
        hint = "kafka-reassign-partitions.sh adds copies"
        yield Difference(spec.name, "replication", f"≥ {spec.replication}", str(have), "warning", hint)
    in_sync = configs.get(_IN_SYNC)
    if have >= 3 and in_sync == "1":  # with fewer copies, asking for two of them would stop all writing
        yield Difference(spec.name, _IN_SYNC, "≥ 2", in_sync, "warning", _alter(spec.name, _IN_SYNC, "2"))


def _compare_configs(spec: TopicSpec, configs: dict[str, str]) -> Iterator[Difference]:
    for key, rule in RULES.items():
        want, have = spec.configs.get(key), configs.get(key)
        if want is None or have is None or rule.holds(have, want):
            continue
        wish = want if rule.relation == "=" else f"{rule.relation} {want}"
        yield Difference(spec.name, key, wish, have, rule.severity, _alter(spec.name, key, want))


def _compare_rejected(settings: Settings, configs: dict[str, dict[str, str]]) -> Iterator[Difference]:
    """A record at its source's limit has to fit into `rejected` with our headers, or it would stop its partition."""
    key, rejected = "max.message.bytes", settings.topic("rejected")
    have = configs.get(rejected, {}).get(key)
    names = [*(kind.topic for kind in KINDS), "items"]
    sources = [configs.get(settings.topic(name), {}).get(key) for name in names]
    want = max((int(limit) for limit in sources if limit), default=0) + HEADERS_BYTES
    if have is not None and int(have) < want:
        yield Difference(rejected, key, f"≥ {want}", have, "error", _alter(rejected, key, str(want)))


def _alter(topic: str, key: str, value: str) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {key}={value}"
