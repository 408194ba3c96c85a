"""Opening partitions: fence, restore, know the positions. In this order:

    1. InitProducerId      fences every older owner, and waits until its last transaction is decided
    2. restore             the store is brought up to the changelog, which nobody else can write to any more
    3. positions           from the changelog, where they were written in the same transaction as the rows

Only then is anything read. A revoke cancels it at any point.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from aiokafka import TopicPartition

from streamer import metrics
from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.failpoint import Failpoint
from streamer.engine.partition import Partition
from streamer.engine.progress import rest
from streamer.engine.restore import Restore
from streamer.engine.store import Store
from streamer.engine.topic_ids import SOURCES, changelog_origin, is_another, topic_ids
from streamer.errors import StateError, TopicsError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

SAY_EVERY_S: Final = 5.0  # a line for each poll would bury everything else

Committed = Callable[[TopicPartition], Awaitable[int | None]]


class Opening:
    """Opens the partitions of one assignment. `doing` is for people, `steps` grows with every step forward."""

    def __init__(
        self,
        settings: Settings,
        reader: CatalogueReader,
        partitions: Mapping[int, Partition],
        block_cache: Any,
        failpoint: Failpoint,
    ) -> None:
        self._settings, self._reader, self._partitions = settings, reader, partitions
        self._block_cache, self._failpoint = block_cache, failpoint
        self.restored_rows, self._restored_to = 0, 0
        self.doing = f"opening {len(partitions)} partitions"
        self._done = 0
        self._began_at = self._said_at = time.monotonic()

    @property
    def steps(self) -> int:
        """Grows with every step forward. What a loaded catalogue goes on reading is no step of ours."""
        read = 0 if self._reader.loaded.is_set() else self._reader.records_read
        return self._done + self._restored_to + read

    async def run(
        self, producers: Mapping[int, Any], first: Mapping[TopicPartition, int], committed: Committed
    ) -> dict[TopicPartition, int]:
        """Returns where to read on in the topic partitions of `first`, which has their beginnings.

        Raises TopicsError for a source that is gone, StateError for state that does not go with the topics there are.
        """
        self._require_sources(first)
        await asyncio.gather(*(self._open(p, producers[n]) for n, p in self._partitions.items()))
        origin, ids = await asyncio.gather(
            asyncio.to_thread(changelog_origin, self._settings),
            asyncio.to_thread(topic_ids, self._settings, sorted({tp.topic for tp in first})),
        )
        restore = Restore(self._settings, origin, list(self._partitions.values()), self.restored)
        await self._failpoint.hold("restoring")
        self._began_at = self._said_at = time.monotonic()
        await restore.run()
        self.restored_rows = restore.rows
        self.doing = "reading the catalogue"
        await self._reader.loaded.wait()
        for partition in self._partitions.values():
            partition.load()
            self._done += 1
        return {tp: await self._position(tp, first[tp], ids[tp.topic], committed) for tp in first}

    def _require_sources(self, first: Mapping[TopicPartition, int]) -> None:
        """The assignor leaves out a topic that is not there: nobody would read it, and nobody would know."""
        gone = {self._settings.topic(name) for name in SOURCES} - {tp.topic for tp in first}
        if first and gone:
            raise TopicsError(
                f"{', '.join(sorted(gone))} was deleted while we read it: bring it back, or `streamer topics create`"
                " makes an empty one"
            )

    async def _open(self, partition: Partition, producer: Any) -> None:
        await producer.start()  # InitProducerId: from here on no older owner can commit
        path = self._settings.data_dir / self._settings.group_id / str(partition.number)
        partition.store = Store(path, self._block_cache)
        self._done += 1

    async def _position(self, tp: TopicPartition, first: int, topic_id: str, committed: Committed) -> int:
        """The changelog's word wins over the group's: it was written with the rows."""
        partition, topic = self._partitions[tp.partition], tp.topic.removeprefix(self._settings.topic_prefix)
        position = partition.position
        if topic not in position.next:
            group = await committed(tp)
            if group is not None and not position.checkpoint:
                raise StateError(
                    f"{tp.topic}/{tp.partition} was read up to {group}, but {self._settings.changelog_topic} knows"
                    " nothing of it: was it deleted? Bring it back; or `streamer reset --to earliest --drop-state`"
                    " rebuilds everything from the events that are there"
                )
            position.next[topic] = partition.saved[topic] = first if group is None else group
        noted = position.topic_ids.setdefault(topic, topic_id)
        if is_another(topic_id, noted):
            raise StateError(
                f"{tp.topic} was deleted and made anew since we read it: offset {position.next[topic]} of the old one"
                f" says nothing about the new one. `streamer reset --to earliest --topic {topic}` reads it from its"
                " beginning"
            )
        return position.next[topic]

    def restored(self, done: int, total: int) -> None:
        """Of the changelog's records, `done` of `total` are restored. Called over and over, also when nothing came."""
        now = time.monotonic()
        so_far = rest(done, total, now - self._began_at)
        self._restored_to = done
        self.doing = f"restoring {len(self._partitions)} partitions, {so_far}"
        metrics.RESTORE_SECONDS_LEFT.set(so_far.seconds or 0)
        if now - self._said_at >= SAY_EVERY_S and so_far.left:
            self._said_at = now
            log.info(
                "restoring from the changelog",
                rows_left=so_far.left,
                rows_per_second=round(so_far.per_second),
                seconds_left=None if so_far.seconds is None else round(so_far.seconds),
            )
