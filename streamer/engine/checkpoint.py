"""The checkpoint of one partition: all that a cut holds goes out in one Kafka transaction, then into the store.

    1. cut        rows, profiles, signals, rejects and positions of whole batches, copied under the partition's lock
    2. begin      a transaction of the partition's own producer
    3. send       profiles, item models, rejects, signals, and last the rows with the position row, in prebuilt batches
    4. await      every acknowledgement
    5. offsets    of the sources, into the same transaction
    6. commit     from here on it has happened, for every reader of committed records, here and elsewhere
    7. store      the rows and the changelog offset that they reach to, in one write

After any failure the outcome of the transaction is unknown, so the process ends: only a restart, which fences the
transaction first, can tell. What a crash between any two steps leaves behind: EXACTLY_ONCE.md.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from streamer import metrics
from streamer.engine.pace import Pace
from streamer.engine.partition import Partition
from streamer.engine.position import Effects
from streamer.engine.slices import Slices
from streamer.engine.topics import HEADERS_BYTES
from streamer.engine.transactions import Headers, Outgoing, send
from streamer.pipeline.cut import PIECE, SHORT_PIECE, Publication
from streamer.settings import Settings

HEADER_BYTES: Final = 10  # of the lengths of name and value, at most
TOLD_AT_ONCE: Final = 1000  # profiles: a millisecond


class Checkpointer:
    """Writes the cuts of one partition. `failpoint(step)` lets tests end the process at a step."""

    def __init__(
        self,
        partition: Partition,
        producer: AIOKafkaProducer,
        settings: Settings,
        published: Callable[[Publication], None],
        failpoint: Callable[[str], None],
        slices: Slices,
        rejected_bytes: int,
    ) -> None:
        self.partition, self.producer, self.settings = partition, producer, settings
        self._published, self._failpoint, self._slices = published, failpoint, slices
        self._rejected_bytes = rejected_bytes - HEADERS_BYTES
        self._source = f"/{settings.app_id}".encode()
        self.pace = Pace(settings)
        self.closed = False  # the partition is given up

    async def run(self, *, last: bool = False) -> int:
        """One checkpoint, if there is anything to write; returns the number of rows. None is made after the `last`.

        Raises as Kafka or the disk do.
        """
        partition = self.partition
        async with partition.txn_lock:
            async with partition.state_lock:
                if self.closed or not partition.has_work(partition.shared.now_ms(), last=last):
                    self.closed |= last
                    return 0
                self.closed = last
                start, began_ns = time.perf_counter(), time.time_ns()
                effects = await self._cut(last=last)
                self.pace.restart()
            self._failpoint("after_cut")
            await self._write(effects)
            self._account(effects, time.perf_counter() - start)
            if partition.spans is not None:
                partition.spans.checkpoint(effects, began_ns)
            return len(effects.rows)

    async def _cut(self, *, last: bool) -> Effects:
        """The partition's cut; others get their turn between its pieces."""
        work = self.partition.cut_in_pieces(SHORT_PIECE if self._slices.are_short else PIECE, last=last)
        while True:
            await self._slices.wait()
            try:
                next(work)
            except StopIteration as done:
                return cast("Effects", done.value)

    async def _write(self, effects: Effects) -> None:
        producer, number, settings = self.producer, self.partition.number, self.settings
        topic = settings.topic
        await producer.begin_transaction()
        self._failpoint("after_begin")
        await self._slices.wait()
        with metrics.stage("send"):
            sent = [
                *await send(producer, topic("profiles"), number, self._profiles(effects)),
                *await send(producer, settings.models_topic, number, (Outgoing(*model) for model in effects.models)),
                *await send(producer, topic("rejected"), number, map(self._rejected, effects.rejected)),
            ]
            for owner, value in effects.signals:
                sent += await send(producer, settings.signals_topic, owner, [Outgoing(None, value)])
            rows = await send(producer, settings.changelog_topic, number, (Outgoing(*row) for row in effects.rows))
            self._failpoint("after_send")
            acknowledged = await asyncio.gather(*[future for future, _ in sent], *[future for future, _ in rows])
        self._failpoint("after_acks")
        with metrics.stage("commit"):
            await producer.send_offsets_to_transaction(self._offsets(effects), settings.group_id)
            self._failpoint("after_offsets")
            await producer.commit_transaction()
        self._failpoint("after_commit")
        await self._tell(effects.publications)
        await self._slices.wait()
        with metrics.stage("store"):
            next_offset = acknowledged[-1].offset + rows[-1][1]
            await self._slices.beside(self.partition.prepare_write(effects, next_offset))
            self.partition.note_stored(effects)

    async def _tell(self, publications: Sequence[Publication]) -> None:
        """Hand what is committed to those who follow it here."""
        for first in range(0, len(publications), TOLD_AT_ONCE):
            await self._slices.wait()
            for publication in publications[first : first + TOLD_AT_ONCE]:
                self._published(publication)

    def _offsets(self, effects: Effects) -> dict[TopicPartition, int]:
        number = self.partition.number
        return {
            TopicPartition(self.settings.topic(name), number): offset for name, offset in effects.position.next.items()
        }

    def _profiles(self, effects: Effects) -> Iterable[Outgoing]:
        """CloudEvents in binary mode: the attributes are headers, the value is the profile itself."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        for publication in effects.publications:
            key = publication.key
            yield Outgoing(
                key,
                publication.value,
                [
                    ("ce_specversion", b"1.0"),
                    ("ce_id", b"%b/%d" % (key, publication.version)),
                    ("ce_source", self._source),
                    ("ce_type", b"profile.changed.v1"),
                    ("ce_time", when),
                    ("ce_subject", key),
                    ("content-type", b"application/json"),
                    *effects.traces.get(key, ()),
                ],
            )

    def _rejected(self, entry: tuple[str, Any, Any]) -> Outgoing:
        """The record as it came; why and from where stands in headers behind its own.

        A compressed record can be larger, unpacked, than the topic takes: then its value stays behind, and what else
        does not fit.
        """
        topic, record, rejected = entry
        kept, left_out = self._fitting(Outgoing(record.key, record.value, list(record.headers)))
        detail = rejected.detail
        if left_out:
            detail += f"; left out here: {', '.join(left_out)} ({self._rejected_bytes} bytes fit in)"
        why: Headers = [
            ("reason", rejected.reason.encode()),
            ("detail", detail.encode(errors="replace")),
            ("source_topic", self.settings.topic(topic).encode()),
            ("source_partition", b"%d" % self.partition.number),
            ("source_offset", b"%d" % record.offset),
        ]
        return kept._replace(headers=[*kept.headers, *why])

    def _fitting(self, record: Outgoing) -> tuple[Outgoing, list[str]]:
        """As much of a record as `rejected` takes, and the names of what it does not."""
        less: tuple[tuple[list[str], Outgoing], ...] = (
            ([], record),
            (["value"], record._replace(value=None)),
            (["value", "headers"], record._replace(value=None, headers=[])),
        )
        for left_out, kept in less:
            if _size(kept) <= self._rejected_bytes:
                return kept, left_out
        return Outgoing(None, None), ["value", "headers", "key"]

    def _account(self, effects: Effects, seconds: float) -> None:
        metrics.CHECKPOINT_SECONDS.observe(seconds)
        metrics.CHECKPOINT_ROWS.inc(len(effects.rows))
        now = self.partition.shared.now_ms()
        for cause, count in Counter(publication.first_change for publication in effects.publications).items():
            metrics.PROFILES.labels(cause).inc(count)
        since = np.array([each.since_ms for each in effects.publications if each.since_ms])
        metrics.PUBLISH_LATENCY.observe(np.maximum(now - since, 0) / 1000)


def _size(record: Outgoing) -> int:
    """At least what it takes in a record batch of its own."""
    own = sum(len(name.encode()) + len(value or b"") + HEADER_BYTES for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + own
