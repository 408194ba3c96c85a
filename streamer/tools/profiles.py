"""Looking at profiles from outside: one user's from a worker's API, or every change from the topic."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import msgspec
import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streamer.client.connect import partition_counts
from streamer.engine.kafka_clients import kafka_python_options
from streamer.errors import BrokerError, StreamerError
from streamer.profile import Profile
from streamer.serving.tls import client_context
from streamer.settings import Settings
from streamer.upstream import partition_of

log = structlog.get_logger(__name__)

ANSWER_S = 10.0  # a worker that passes the request on to the user's owner answers within a second
POSITION_MS = 10_000  # one round trip to each leader, and a new election in between
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a worker that listens everywhere is found from here

_decode = msgspec.json.Decoder(Profile).decode


class Published(msgspec.Struct, frozen=True):
    """One record of the profile topic: `profile` is None when the user was erased; `at_ms` is when, in Unix ms."""

    user_id: str
    at_ms: int
    profile: Profile | None
    value: bytes | None


def fetch_profile(settings: Settings, user_id: str) -> bytes:
    """The profile of `user_id` as JSON, from the worker at http_host:http_port.

    Raises StreamerError when there is no worker, it is not ready, or it knows no such user.
    """
    host = ANYWHERE.get(settings.http_host, settings.http_host)
    where = f"{host}:{settings.http_port}"
    token = settings.http_token.get_secret_value()
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection = _connection(settings, host)
    try:
        connection.request("GET", f"/v1/users/{quote(user_id, safe='')}/profile", headers=headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise StreamerError(
            f"no worker answers at {where} ({exc}): start one with `streamer worker` or `streamer demo`,"
            " or say where it is with STREAMER_HTTP_HOST and STREAMER_HTTP_PORT"
        ) from exc
    finally:
        connection.close()
    if status != 200:
        raise _refused(where, status, body)
    return body


def _connection(settings: Settings, host: str) -> http.client.HTTPConnection:
    """To a worker with settings like ours, in TLS where it speaks that."""
    tls = client_context(settings)
    if tls is None:
        return http.client.HTTPConnection(host, settings.http_port, timeout=ANSWER_S)
    return http.client.HTTPSConnection(host, settings.http_port, timeout=ANSWER_S, context=tls)


def decode_profile(body: bytes) -> Profile:
    """A published profile. Raises StreamerError for anything else."""
    try:
        return _decode(body)
    except msgspec.MsgspecError as exc:
        raise StreamerError(f"what came is not a profile ({exc}): is something else there than a worker?") from exc


@contextmanager
def follow_profiles(settings: Settings, user_id: str | None, *, from_beginning: bool) -> Iterator[Iterator[Published]]:
    """Every profile that is published, of all users or of one, from now or from the beginning; committed ones only.

    Its position is fixed when the block is entered. Raises TopicsError when the topic is missing, BrokerError without
    a broker.
    """
    topic = settings.topic("profiles")
    count = partition_counts(settings, [topic])[topic]
    numbers = range(count) if user_id is None else [partition_of(user_id.encode(), count)]
    consumer = None
    try:
        consumer = _consumer(settings, [TopicPartition(topic, number) for number in numbers])
        (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)()
        for partition in consumer.assignment():  # a seek is carried out when the position is asked for
            consumer.position(partition, timeout_ms=POSITION_MS)
        yield (published for published in _published(consumer) if user_id in (None, published.user_id))
    except KafkaError as exc:
        raise BrokerError(f"Kafka at {settings.brokers} did not let us read: {exc}") from exc
    finally:
        if consumer is not None:
            consumer.close()


def _refused(where: str, status: int, body: bytes) -> StreamerError:
    """What a problem+json answer (RFC 9457) says, or the status when it is something else."""
    try:
        problem = json.loads(body)
        said = problem.get("detail") or problem["title"]
    except (ValueError, KeyError, AttributeError, TypeError):
        said = http.client.responses.get(status, "")
    hint = {
        401: ": set STREAMER_HTTP_TOKEN to the worker's",
        503: ": it recovers or rebalances, try again in a few seconds",
    }.get(status, "")
    return StreamerError(f"the worker at {where} answers {status}: {said}{hint}")


def _consumer(settings: Settings, partitions: list[TopicPartition]) -> KafkaConsumer:
    """A consumer of its own, without a group: it leaves nothing behind on the broker."""
    consumer = KafkaConsumer(
        **kafka_python_options(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        allow_auto_create_topics=False,
    )
    consumer.assign(partitions)
    return consumer


def _published(consumer: KafkaConsumer) -> Iterator[Published]:
    for record in consumer:
        user_id = (record.key or b"").decode(errors="replace")
        if record.value is None:
            yield Published(user_id, record.timestamp, None, None)
            continue
        try:
            profile = _decode(record.value)
        except msgspec.MsgspecError as exc:
            log.warning("not a profile, skipped", partition=record.partition, offset=record.offset, reason=str(exc))
            continue
        yield Published(user_id, profile.published_at, profile, record.value)
