"""How the client meets Kafka: topics looked up first, and Kafka's errors as ours, with what to do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kafka import errors as kafka_errors

from streamer.engine.kafka_clients import admin_client
from streamer.errors import BrokerError, TopicsError
from streamer.settings import Settings

# A broker that is back is found within this; kafka-python's own pause grows to 30 s.
RECONNECT = {"reconnect_backoff_max_ms": 2_000}
_MISSING = kafka_errors.UnknownTopicOrPartitionError.errno


def partition_counts(settings: Settings, names: Iterable[str]) -> dict[str, int]:
    """Partitions of every topic by its full name, asked without creating any; one attempt to connect.

    Raises TopicsError for topics that are missing or closed to us, BrokerError when no broker answers.
    """
    with admin_client(settings) as admin:
        topics = admin.describe_topics(list(names))
    problems = [f"{topic['name']}: {_problem(topic['error_code'])}" for topic in topics if topic["error_code"]]
    if problems:
        raise TopicsError(f"topics cannot be used at {settings.brokers}:\n  " + "\n  ".join(problems))
    return {topic["name"]: len(topic["partitions"]) for topic in topics}


@contextmanager
def kafka_errors_explained(settings: Settings) -> Iterator[None]:
    """Kafka's errors inside the block become BrokerError."""
    try:
        yield
    except kafka_errors.KafkaError as exc:
        raise BrokerError(f"Kafka at {settings.brokers}: {explain(exc)}") from exc


def explain(exc: BaseException) -> str:
    """What Kafka says, and what to do where there is one answer."""
    hints = {
        kafka_errors.TopicAuthorizationFailedError: "ask the cluster's owner for access to the topic",
        kafka_errors.GroupAuthorizationFailedError: "ask the cluster's owner for READ on the group",
        kafka_errors.MessageSizeTooLargeError: "raise max.message.bytes of the topic",
    }
    hint = next((hint for kind, hint in hints.items() if isinstance(exc, kind)), "")
    said = str(exc) or type(exc).__name__
    return f"{said}: {hint}" if hint else said


def _problem(error_code: int) -> str:
    if error_code == _MISSING:
        return "missing: `streamer topics create` makes it; or set STREAMER_TOPIC_PREFIX"
    return explain(kafka_errors.for_code(error_code)())
