"""Every worker's view of all items: reads `items` and `item-models` whole, from their beginning, and follows them.

No group: every worker reads everything. What is bad in `items` is passed over; the record's owner rejects it.
"""

import asyncio
import logging
import time
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from streamer import metrics
from streamer.engine.exit import leave
from streamer.engine.kafka_clients import aiokafka_options
from streamer.engine.record_batches import take_apart
from streamer.engine.shared import Shared
from streamer.pipeline.decode import decode_items
from streamer.pipeline.item_model import decode_model
from streamer.pipeline.names import Named
from streamer.settings import Settings

log = structlog.get_logger(__name__)

POLL_MS: Final = 100
REFRESH_S: Final = 2.0  # Gram matrix and population shares: they move slowly, and cost 100 ns an item
PIECE, SHORT_PIECE = 500, 50  # records taken in at once; while slices are short
CATCH_UP_S: Final = 2.0  # an event waits no longer for the description of its item


class CatalogueReader(Service):
    """Fills a Catalogue and keeps it fresh."""

    logger = logging.getLogger("mode")  # a service's comings and goings: filtered with the library's own

    def __init__(self, settings: Settings, shared: Shared, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings, self._limits, self._slices = settings, shared.limits, shared.slices
        self._catalogue, self._space = shared.catalogue, shared.space
        self._items, self._models = settings.topic("items"), settings.models_topic
        self._moved = asyncio.Condition()
        self._applied: dict[TopicPartition, int] = {}  # the consumer's own position is that of what it handed out
        self._refreshed = 0.0
        self._said_full = False
        self.named: dict[
            int, Named
        ] = {}  # of the partitions that are open: they name an item's tags anew when those change
        self.loaded = asyncio.Event()
        self._consumer: Any = None
        self._partitions: list[TopicPartition] = []

    @property
    def records_read(self) -> int:
        """How far it has read, all partitions together: grows with every step."""
        return sum(self._applied.values())

    async def on_start(self) -> None:
        """Find the partitions and start reading."""
        take_apart()
        self._consumer = AIOKafkaConsumer(
            **aiokafka_options(self._settings),
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=POLL_MS,
            max_partition_fetch_bytes=4 << 20,
        )
        await self._consumer.start()
        numbers = range(self._settings.partitions)
        self._partitions = [TopicPartition(topic, n) for topic in (self._items, self._models) for n in numbers]
        self._consumer.assign(self._partitions)

    @Service.task
    async def _follow(self) -> None:
        try:
            ends = await self._consumer.end_offsets(self._partitions)
            while not self.should_stop:
                await self._read()
                if not self.loaded.is_set() and self._reached(ends):
                    await self._refresh()
                    self.loaded.set()
                    log.info("catalogue read", items=self._catalogue.listed, models=int(self._catalogue.modelled.sum()))
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            leave("reading the catalogue failed", exc)

    async def _read(self) -> None:
        for tp, records in (await self._consumer.getmany(timeout_ms=POLL_MS, max_records=5000)).items():
            apply = self._apply_items if tp.topic == self._items else self._apply_models
            size = SHORT_PIECE if self._slices.are_short else PIECE
            for first in range(0, len(records), size):
                await self._slices.wait()  # a large catalogue must not hold up the rest of the worker
                apply(records[first : first + size])
        self._applied = {tp: await self._consumer.position(tp) for tp in self._partitions}
        async with self._moved:
            self._moved.notify_all()
        self._note_size()
        if self.loaded.is_set() and time.monotonic() - self._refreshed > REFRESH_S:
            await self._refresh()

    def _note_size(self) -> None:
        catalogue, limit = self._catalogue, self._settings.catalogue_items
        metrics.ITEMS.set(catalogue.listed)
        metrics.CATALOGUE_ITEMS.set(len(catalogue))
        metrics.CATALOGUE_TAGS.set(len(catalogue.tag_names))
        full = max(catalogue.counted, len(catalogue.tag_names)) >= limit
        if full and not self._said_full:
            log.warning(
                "catalogue full: what events name beyond it and `items` does not list gets no model, and no tags of its"
                " own are counted for everybody; list it, or raise STREAMER_CATALOGUE_ITEMS",
                items=len(catalogue),
                listed=catalogue.listed,
                tags=len(catalogue.tag_names),
                limit=limit,
            )
        self._said_full = full

    def _apply_items(self, records: list[Any]) -> None:
        changes, _ = decode_items(records, self._limits)
        for item_id, item in changes:
            slot = self._catalogue.forget(item_id) if item is None else self._catalogue.describe(item)
            if slot is not None:
                self._retag(slot)

    def _retag(self, slot: int) -> None:
        """The tags of an item may be others now."""
        for named in self.named.values():
            named.retag(slot)

    def _apply_models(self, records: list[Any]) -> None:
        for record in records:
            if record.value is None:
                self._catalogue.drop_model(record.key.decode())
            else:
                model = decode_model(record.value)
                slot = self._catalogue.apply_model(model)
                if model.tags and slot is not None:
                    self._retag(slot)

    async def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        work = self._space.outdated()
        if work is not None:
            with metrics.stage("refresh"):
                self._space.take_in(await asyncio.to_thread(work))

    def _reached(self, ends: dict[TopicPartition, int]) -> bool:
        return all(self._applied.get(tp, 0) >= end for tp, end in ends.items())

    async def catch_up(self) -> None:
        """Wait until `items` is read as far as it goes by now: no event overtakes the description of its item."""
        partitions = [tp for tp in self._partitions if tp.topic == self._items]
        try:
            async with asyncio.timeout(CATCH_UP_S):
                ends = await self._consumer.end_offsets(partitions)
                async with self._moved:
                    await self._moved.wait_for(lambda: self._reached(ends))
        except (TimeoutError, KafkaError) as exc:
            log.warning("the catalogue lags behind: events go on without the tags of new items", reason=repr(exc))

    async def on_stop(self) -> None:
        """Close the consumer."""
        await self._consumer.stop()
