"""Clicks, purchases and items into their topics: checked, keyed by user or item, acknowledged by all copies."""

import time
from contextlib import suppress
from itertools import count
from threading import BoundedSemaphore, Lock
from types import TracebackType
from typing import Self

import structlog
from kafka import KafkaProducer
from kafka import errors as kafka_errors

from streamer.client.connect import RECONNECT, explain, kafka_errors_explained, partition_counts
from streamer.client.errors import ClosedError, DeliveryError
from streamer.client.wire import ROUTES, Outgoing, deletion, outgoing
from streamer.engine.kafka_clients import kafka_python_options
from streamer.events import Item, UserEvent
from streamer.settings import Settings, load

log = structlog.get_logger(__name__)

UNACKNOWLEDGED = 10_000  # events in memory at most, some 3 MB: kafka-python itself has no limit
LINGER_MS = 5  # events of a burst travel together; nobody notices these 5 ms
REQUEST_MS = 30_000  # Kafka's default for one attempt
GRACE_S = 5.0  # by which kafka-python may give up events late, and its thread may end late

Sent = UserEvent | Item | str  # an item_id stands for the item's deletion


class EventProducer:
    """Sends events so that the worker takes them. Threads may share one.

        import time
        import uuid

        from streamer.client import Click, EventProducer

        with EventProducer() as producer:
            now_ms = time.time_ns() // 1_000_000
            producer.send(Click(event_id=str(uuid.uuid4()), user_id="ada", item_id="tent-7", ts=now_ms, tags=("tent",)))

    `send` checks the event and returns at once; it is acknowledged in the background, by all copies, and stored once
    however often it had to be sent. Leaving the block waits for that. What was not acknowledged within
    `delivery_timeout_ms` is raised as DeliveryError by the next `send`, `flush` or `close`. While 10,000 events wait
    for their acknowledgement, `send` waits too.

    Args:
        settings: default: from the environment.
        delivery_timeout_ms: how long a broker may be away before events are given up (ms).

    Raises SettingsError, BrokerError without a broker or when it refuses us, TopicsError where topics are missing.
    """

    def __init__(self, settings: Settings | None = None, *, delivery_timeout_ms: int = 120_000) -> None:
        self._settings = settings or load()
        self._delivery_s = delivery_timeout_ms / 1000
        self._failures: list[tuple[Sent, Exception]] = []
        self._waiting: dict[int, Sent] = {}
        self._numbers = count()
        self._lock = Lock()  # of the failures, which kafka-python's thread adds
        self._free = BoundedSemaphore(UNACKNOWLEDGED)
        self._open = True
        topics = [self._settings.topic(route.topic) for route in ROUTES.values()]
        partition_counts(self._settings, topics)
        with kafka_errors_explained(self._settings):
            self._producer = KafkaProducer(
                **kafka_python_options(self._settings),
                **RECONNECT,
                acks="all",
                enable_idempotence=True,
                linger_ms=LINGER_MS,
                delivery_timeout_ms=delivery_timeout_ms,
                request_timeout_ms=min(REQUEST_MS, delivery_timeout_ms - LINGER_MS),
                max_block_ms=delivery_timeout_ms,
                allow_auto_create_topics=False,
            )
            for topic in topics:  # looked up now: the first `send` would wait for it, as long as a broker is away
                self._producer.partitions_for(topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeliveryError as exc:
            if kind is None:
                raise
            log.error("events were not delivered", events=len(exc.events), reason=str(exc))

    def send(self, event: UserEvent | Item) -> None:
        """Send an event, or an item of the catalogue.

        Raises InvalidEventError for what the worker would reject, and DeliveryError for earlier events that were not
        acknowledged. This one is not sent then; the second error has it in its `events` too.
        """
        self._send(outgoing(event, self._settings, now_ms=time.time_ns() // 1_000_000), event)

    def forget_item(self, item_id: str) -> None:
        """Delete an item from the catalogue. Raises as `send` does; `events` of a DeliveryError has the item_id."""
        self._send(deletion(item_id), item_id)

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged. Raises DeliveryError for what was not."""
        try:
            self._producer.flush(timeout=self._delivery_s + GRACE_S)
        except kafka_errors.KafkaTimeoutError as exc:
            raise self._undelivered(exc, *self._waiting.values()) from exc
        self._raise_failures()

    def close(self) -> None:
        """Wait for all acknowledgements and leave the broker. Raises DeliveryError for what was not acknowledged."""
        if not self._open:
            return
        self._open = False
        try:
            self.flush()
        finally:
            with suppress(kafka_errors.KafkaTimeoutError):  # flush has said so
                self._producer.close(timeout=GRACE_S)

    def _send(self, record: Outgoing, event: Sent) -> None:
        if not self._open:
            raise ClosedError("this producer is closed: make a new one")
        self._raise_failures(event)
        if not self._free.acquire(timeout=self._delivery_s + GRACE_S):
            raise self._undelivered(None, *self._waiting.values(), event)
        number = next(self._numbers)
        self._waiting[number] = event
        try:
            topic = self._settings.topic(record.topic)
            future = self._producer.send(topic, key=record.key, value=record.value)
        except kafka_errors.KafkaError as exc:
            self._failed(number, exc)
            self._raise_failures()
        else:
            future.add_callback(self._acknowledged, number)
            future.add_errback(self._failed, number)

    def _acknowledged(self, number: int, _: object) -> None:
        del self._waiting[number]
        self._free.release()

    def _failed(self, number: int, exc: Exception) -> None:
        with self._lock:
            self._failures.append((self._waiting.pop(number), exc))
        self._free.release()

    def _raise_failures(self, *unsent: Sent) -> None:
        if self._failures:
            raise self._undelivered(None, *unsent)

    def _undelivered(self, exc: Exception | None, *more: Sent) -> DeliveryError:
        """An error that takes the failures so far with it."""
        with self._lock:
            failures, self._failures = self._failures, []
        cause = failures[0][1] if failures else exc
        reason = explain(cause) if cause else "no acknowledgement in time"
        events = [*(event for event, _ in failures), *more]
        said = f"{len(events)} events are not known to be in Kafka at {self._settings.brokers}: {reason}."
        return DeliveryError(said + " Send those in `events` again when it is there", events)
