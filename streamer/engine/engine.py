"""The engine: has partitions opened and gives them up, applies batches to them, and checkpoints them."""

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import TopicPartition

from streamer import metrics
from streamer.engine.cache import CacheFullError
from streamer.engine.catalogue_reader import CatalogueReader
from streamer.engine.checkpoint import Checkpointer
from streamer.engine.exit import leave
from streamer.engine.failpoint import Failpoint
from streamer.engine.fetching import Batch
from streamer.engine.opening import Committed, Opening
from streamer.engine.partition import Partition
from streamer.engine.position import Take
from streamer.engine.shared import Shared
from streamer.engine.store import shared_cache
from streamer.engine.tracing import Traces, spans_of
from streamer.engine.transactions import partition_producer
from streamer.pipeline.cut import Publication
from streamer.settings import Settings

log = structlog.get_logger(__name__)

IDLE_MS = 250  # how often we look for held-back changes that are due
LOOK_S = 0.02  # how often a checkpoint that may wait asks whether it still may
# Checkpoints at once. Twelve large ones blocked the loop for seconds, six come so early that rows are written for fewer
# events, and one leaves the broker idle. Small ones mostly wait for the broker.
LARGE_AT_ONCE, SMALL_AT_ONCE = 3, 6
LARGE_ROWS: Final = 500


class Engine:
    """All partitions of this worker."""

    def __init__(
        self,
        settings: Settings,
        shared: Shared,
        reader: CatalogueReader,
        published: Callable[[str, int, bytes], None],
        rejected_bytes: int,
    ) -> None:
        self.settings, self.shared, self.reader = settings, shared, reader
        self.partitions: dict[int, Partition] = {}
        self.epoch = 0  # +1 at every release: what was fetched before is void
        self.ready, self._reason = False, "joining the group"
        self.opening: Opening | None = None  # while partitions are being opened
        self._published, self._rejected_bytes = published, rejected_bytes
        self._checkpointers: dict[int, Checkpointer] = {}
        self._releasing = asyncio.Lock()
        self._large, self._small = asyncio.Semaphore(LARGE_AT_ONCE), asyncio.Semaphore(SMALL_AT_ONCE)
        self._keepers: set[asyncio.Task[None]] = set()
        self._block_cache = shared_cache(settings.rocksdb_cache_mb)
        self._spans = spans_of(settings)
        self._failpoint = Failpoint(settings)

    # ---- rebalance
    async def acquire(
        self,
        assigned: set[TopicPartition],
        first: dict[TopicPartition, int],
        committed: Committed,
    ) -> dict[TopicPartition, int]:
        """Open the partitions of `assigned` and bring them up to date; returns where to read on."""
        numbers = sorted({tp.partition for tp in assigned})
        start = time.monotonic()
        self.partitions = {n: Partition(n, self.shared) for n in numbers}
        for partition in self.partitions.values():
            partition.traces = Traces() if self.settings.trace_context else None
            partition.spans = self._spans(partition.number)
        self._checkpointers = {n: self._checkpointer(p) for n, p in self.partitions.items()}
        metrics.PARTITIONS_OWNED.set(len(numbers))
        opening = Opening(self.settings, self.reader, self.partitions, self._block_cache, self._failpoint)
        self.opening = opening
        producers = {n: writer.producer for n, writer in self._checkpointers.items()}
        positions = await opening.run(producers, first, committed)
        self.reader.named = {n: p.named for n, p in self.partitions.items()}
        self._set_ready()
        for writer in self._checkpointers.values():
            keeper = asyncio.create_task(self._keep(writer))
            self._keepers.add(keeper)
            keeper.add_done_callback(self._keepers.discard)
        seconds = round(time.monotonic() - start, 2)
        log.info("ready", partitions=numbers, restored_rows=opening.restored_rows, seconds=seconds)
        return positions

    def _checkpointer(self, partition: Partition) -> Checkpointer:
        producer = partition_producer(self.settings, partition.number)
        tools = (self._publish, self._failpoint, self.shared.slices)
        return Checkpointer(partition, producer, self.settings, *tools, self._rejected_bytes)

    @property
    def reason(self) -> str:
        """In words: what we wait for, or that we are ready."""
        return self._reason if self.opening is None else self.opening.doing

    def _set_ready(self) -> None:
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again and again
        self.ready, self.opening, self._reason = True, None, "ready"
        metrics.READY.set(1)

    async def release(self) -> None:
        """Checkpoint, close, forget. Ingest has stopped the flow and ended a running `acquire`."""
        self.ready, self.opening, self._reason = False, None, "rebalancing"
        metrics.READY.set(0)
        self.epoch += 1
        async with self._releasing:  # a stop and a rebalance can meet: the second waits for the first
            partitions, self.partitions = self.partitions, {}
            writers, self._checkpointers = self._checkpointers, {}
            self.reader.named = {}
            await self._failpoint.hold("releasing")
            opened = [writers[n] for n, p in partitions.items() if p.position.next]
            await asyncio.gather(*(self._checkpoint(writer, last=True) for writer in opened))
            for number, partition in partitions.items():
                await _close(partition, writers.get(number))
                self.shared.cache.drop(number)
                if self.shared.ranking:
                    self.shared.ranking.mixers.pop(number, None)
            metrics.PARTITIONS_OWNED.set(0)
            if partitions:
                log.info("gave up partitions", partitions=sorted(partitions))

    # ---- checkpoints
    async def _keep(self, writer: Checkpointer) -> None:
        """Checkpoint one partition again and again, until it is given up."""
        partition = writer.partition
        while not writer.closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(partition.changed.wait(), IDLE_MS / 1000)
            partition.changed.clear()
            rows = await self._checkpoint(writer)
            metrics.HELD_PROFILES.set(sum(len(p.held) for p in self.partitions.values()))
            await asyncio.sleep(writer.pace.shortest_ms(rows) / 1000)
            while self._may_wait(writer):  # noqa: ASYNC110 - time itself changes the answer
                await asyncio.sleep(LOOK_S)

    def _may_wait(self, writer: Checkpointer) -> bool:
        """Whether a checkpoint had better come later. At half of its rows it does not wait until it has to come."""
        half_full = writer.partition.is_full(self.settings.checkpoint_rows // 2)
        return writer.pace.may_wait() and not half_full and not writer.closed

    async def checkpoint_all(self) -> None:
        """Checkpoint every partition that has something to write."""
        await asyncio.gather(*(self._checkpoint(writer) for writer in list(self._checkpointers.values())))

    async def _checkpoint(self, writer: Checkpointer, *, last: bool = False) -> int:
        async with self._large if writer.partition.is_full(LARGE_ROWS) else self._small:
            try:
                return await writer.run(last=last)
            except BaseException as exc:
                leave(f"checkpoint of partition {writer.partition.number}", exc)

    def _publish(self, publication: Publication) -> None:
        self._published(publication.key.decode(), publication.version, publication.value)

    # ---- what the agents do
    async def take_events(self, batch: Batch) -> None:
        """A batch of user events."""
        partition = self._owner(batch)
        if partition is None:
            return
        await self._make_way(partition)
        await self.shared.slices.wait()
        parts = partition.decode(batch.takes)
        if partition.names_unknown_items(parts):
            await self.reader.catch_up()
        while True:
            try:
                await self._apply(batch, lambda partition: partition.apply_events(parts))
                break
            except CacheFullError:
                await self.checkpoint_all()  # saved users may leave memory
        if (writer := self._writer(partition)) is not None:
            writer.pace.applied(sum(len(take.records) for take in batch.takes), batch.waiting)

    async def _make_way(self, partition: Partition) -> None:
        """Nothing runs away from checkpoints: what a crash repeats stays small, and so does what waits for one."""
        if not partition.is_full(self.settings.checkpoint_rows):
            return
        writer = self._writer(partition)
        if writer is not None:
            await self._checkpoint(writer)

    def _writer(self, partition: Partition) -> Checkpointer | None:
        """Who checkpoints a partition; None once it is given up."""
        writer = self._checkpointers.get(partition.number)
        return writer if writer is not None and writer.partition is partition else None

    async def take_items(self, batch: Batch) -> None:
        """A batch of catalogue changes."""
        partition = self._owner(batch)
        if partition is not None:
            await self._make_way(partition)
        await self._apply(batch, lambda partition: partition.apply_items(batch.takes))

    async def take_signals(self, batch: Batch) -> None:
        """A batch of signals."""
        await self._apply(batch, lambda partition: partition.apply_signals(batch.takes))

    def _owner(self, batch: Batch) -> Partition | None:
        """The partition of a batch; None for a batch that was fetched before a rebalance."""
        return self.partitions.get(batch.partition) if batch.epoch == self.epoch else None

    async def _apply(self, batch: Batch, change: Callable[[Partition], object]) -> None:
        """Rows and positions move together.

        Raises CacheFullError before anything changed; any other failure ends the process.
        """
        partition = self._owner(batch)
        if partition is None:
            return
        async with partition.state_lock:
            await self.shared.slices.wait()
            if self._owner(batch) is None:
                return
            try:
                began_ns = time.time_ns()
                _check_order(partition, batch.takes)
                change(partition)
                if partition.spans is not None:
                    partition.spans.batch(batch.takes, began_ns)
                self._failpoint("mid_batch")
                for take in batch.takes:
                    partition.advance(take)
            except CacheFullError:
                raise
            except Exception as exc:
                leave(f"applying a batch of partition {batch.partition}", exc)
        partition.changed.set()


def _check_order(partition: Partition, takes: list[Take]) -> None:
    for take in takes:
        at = partition.position.next[take.topic]
        if at != take.after:
            raise RuntimeError(f"{take.topic}/{partition.number} stands at {at}, but the batch follows {take.after}")


async def _close(partition: Partition, writer: Checkpointer | None) -> None:
    """Also after a half-finished opening."""
    async with partition.txn_lock:  # a backup may be copying it
        store, partition.store = partition.store, None
        if store is not None:
            store.close()
    if writer is not None:
        writer.closed = True
        await writer.producer.stop()
