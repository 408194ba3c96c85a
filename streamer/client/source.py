"""The consumer behind a subscriber: where it starts, what it fetches, and the group's place. Used by one thread."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata

from streamer.client.connect import RECONNECT, explain, kafka_errors_explained, partition_counts
from streamer.client.counters import Counters
from streamer.client.errors import CommitError
from streamer.client.snapshot import Progress, read_snapshot
from streamer.client.updates import Record
from streamer.engine.kafka_clients import kafka_python_options
from streamer.settings import Settings

log = structlog.get_logger(__name__)

Start = Literal["beginning", "now", "snapshot"]

POLL_MS = 250  # the longest that stop() takes while nothing arrives
COMMIT_MS = 1000  # what comes again after a crash; one small request a second
ANSWER_MS = 10_000  # a round trip to a leader or coordinator, and an election in between
PARTITION_FETCH_BYTES = 4 << 20  # some 2,000 profiles a round trip, where Kafka's default of 1 MiB takes four
FETCH_BYTES = 16 << 20  # … and not more than this from all partitions together, which bounds memory


class Source:
    """Committed records of the profile topic: of all partitions without a group, else of those that are ours.

    Auto-commit is kafka-python's: it commits the positions of what was fetched, only within a fetch and when partitions
    are taken away, which happens within a fetch too. So whoever fetches only after all was processed never commits
    more than that. Raises TopicsError and BrokerError.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        *,
        group: str | None,
        start: Start,
        auto_commit: bool,
        poll_records: int,
    ) -> None:
        self._settings, self._counters, self._group = settings, counters, group
        self._behind: dict[TopicPartition, int] = {}
        self._place_is_kept = group is None or start != "now"
        topic = settings.topic("profiles")
        count = partition_counts(settings, [topic])[topic]
        with kafka_errors_explained(settings):
            self._consumer = KafkaConsumer(
                **kafka_python_options(settings),
                **RECONNECT,
                group_id=group,
                isolation_level="read_committed",
                auto_offset_reset="latest" if start == "now" else "earliest",
                enable_auto_commit=auto_commit,
                auto_commit_interval_ms=COMMIT_MS,
                default_offset_commit_callback=self._on_auto_commit,
                allow_auto_create_topics=False,
                max_poll_records=poll_records,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
                fetch_max_bytes=FETCH_BYTES,
            )
            try:
                self._take_place(topic, count, start)
            except BaseException:
                self.close()
                raise

    def _take_place(self, topic: str, count: int, start: Start) -> None:
        if self._group is not None:
            self._consumer.subscribe([topic])
            return
        self._consumer.assign([TopicPartition(topic, number) for number in range(count)])
        if start == "now":
            self._consumer.seek_to_end()
            self._positions()  # a seek is carried out when the position is asked for: now, not at the first fetch

    def fetch(self) -> list[Record]:
        """What is there, or arrives within POLL_MS; a broker that is away counts as nothing."""
        with kafka_errors_explained(self._settings):
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=POLL_MS)
            self._count_lag(polled)
        records = [
            Record(record.key, record.value, record.partition, record.offset, record.timestamp)
            for of_partition in polled.values()
            for record in of_partition
        ]
        if not self._place_is_kept and self._consumer.assignment():
            self._keep_first_place(records)
        return records

    def snapshot(self, memory_bytes: int, on_progress: Callable[[Progress], None]) -> Iterator[Record | None]:
        """The latest record of every key; None after each poll."""
        with kafka_errors_explained(self._settings):
            yield from read_snapshot(
                self._consumer, poll_ms=POLL_MS, memory_bytes=memory_bytes, on_progress=on_progress
            )

    def commit(self, ahead: Iterable[Record]) -> None:
        """Keep the group's place before the first of `ahead` in each partition, else behind all that was fetched.

        Raises CommitError. Does nothing without a group.
        """
        if self._group is None:
            return
        places = self._positions()
        for record in ahead:
            partition = TopicPartition(self._settings.topic("profiles"), record.partition)
            if partition in places:
                places[partition] = min(places[partition], record.offset)
        try:
            offsets = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in places.items()}
            self._consumer.commit(offsets, timeout_ms=ANSWER_MS)
        except kafka_errors.KafkaError as exc:
            self._counters.commit_failures += 1
            raise CommitError(f"the place of group {self._group} was not kept: {explain(exc)}") from exc
        self._counters.commits += 1

    def close(self) -> None:
        """Leave the group and the broker, without a commit."""
        self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    def _keep_first_place(self, ahead: list[Record]) -> None:
        """A group that starts now and ends before its first commit would start at another now, and miss changes."""
        with suppress(CommitError):  # a rebalance is under way: after the next fetch then
            self.commit(ahead)
            self._place_is_kept = True

    def _positions(self) -> dict[TopicPartition, int]:
        found, ends_at = {}, time.monotonic() + ANSWER_MS / 1000  # for all of them: a broker that is away answers none
        with kafka_errors_explained(self._settings):
            for each in self._consumer.assignment():
                left_ms = int(1000 * (ends_at - time.monotonic()))
                found[each] = self._consumer.position(each, timeout_ms=max(left_ms, 0))
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def _count_lag(self, polled: Iterable[TopicPartition]) -> None:
        consumer = self._consumer
        for partition in polled:
            position = consumer.position(partition, timeout_ms=ANSWER_MS)  # known: a record was just fetched
            self._behind[partition] = consumer.highwater(partition) - position
        self._counters.lag_records = sum(self._behind.get(partition, 0) for partition in consumer.assignment())

    def _on_auto_commit(self, offsets: Any, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._counters.commit_failures += 1
            log.warning("position not committed, trying again", group=self._group, reason=explain(answer))
        else:
            self._counters.commits += 1
